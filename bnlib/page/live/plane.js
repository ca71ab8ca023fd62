// Two weights before BN, computed in the page: drag w and see its error, its gradient and where gradient descent goes.
// `compute` is rayleigh, rayleigh_gradient and optimum of bnlib.theory.length_direction; a browser test holds them equal.
"use strict";

(() => {
  const U = [-1, 0], LOW = 0.2, RATE = 0.3, STEPS = 40, SIDE = 3.4, WEDGES = 120;
  const MOVED = "#0072B2", RAD = Math.PI / 180;

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const times = (S, w) => [dot(S[0], w), dot(S[1], w)];
  const size = (w) => Math.hypot(w[0], w[1]);
  const angle = (w) => Math.atan2(w[1], w[0]) / RAD;

  // Second moments with eigenvalue 1 in this direction and LOW across it.
  function moments(degrees) {
    const c = Math.cos(degrees * RAD), s = Math.sin(degrees * RAD), off = (1 - LOW) * c * s;
    return [[c * c + LOW * s * s, off], [off, s * s + LOW * c * c]];
  }

  // Error with the best length, and its gradient: at right angles to w.
  function look(S, u, w) {
    const Sw = times(S, w), square = dot(w, Sw), along = dot(u, w);
    const rho = (-along * along) / square, scale = (-2 * along) / square;
    return { rho, gradient: [0, 1].map((i) => scale * (u[i] - (along / square) * Sw[i])) };
  }

  function compute(S, u, w, rate, steps) {
    const path = [w];
    for (let k = 0; k < steps; k++) {
      const at = path[k], { gradient } = look(S, u, at);
      path.push([at[0] - rate * gradient[0], at[1] - rate * gradient[1]]);
    }
    const det = S[0][0] * S[1][1] - S[0][1] * S[1][0];
    const best = [-(S[1][1] * u[0] - S[0][1] * u[1]) / det, -(S[0][0] * u[1] - S[1][0] * u[0]) / det];
    return { ...look(S, u, w), path, best };
  }

  function tag(parent, name, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function mount(host, values, { set }) {
    let state, center, scale, held = false;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", "The plane of two weights. The point w can be moved: left and right arrow keys turn it, up and down change its length.");
    host.replaceChildren(svg);
    const marks = tag(svg, "g", {});
    const handle = tag(svg, "g", { tabindex: 0, role: "slider", "aria-label": "weights w", "aria-valuemin": -180, "aria-valuemax": 180, class: "bn-handle" });
    tag(handle, "circle", { r: 22, fill: "transparent" });
    tag(handle, "circle", { r: 12, fill: MOVED });
    tag(handle, "text", { fill: "white", "text-anchor": "middle", dy: "0.36em" }, "w");

    const nearest = (list, value) => list.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(list[best] - value) ? i : best), 0);
    const step = (name, by) => {
      const count = values[name].length, now = values[name].indexOf(state[name]) + by;
      // Directions go round: the last one is the first one again.
      const place = name === "direction" ? (now < 0 ? count - 2 : now >= count ? 1 : now) : Math.min(count - 1, Math.max(0, now));
      set(name, place);
    };
    handle.addEventListener("keydown", (event) => {
      const jump = { Home: 0, End: values.direction.length - 1 }[event.key];
      const move = {
        ArrowLeft: ["direction", 1], ArrowRight: ["direction", -1], ArrowUp: ["length", 1], ArrowDown: ["length", -1],
        PageUp: ["length", 3], PageDown: ["length", -3],
      }[event.key];
      if ((!move && jump === undefined) || event.altKey || event.ctrlKey || event.metaKey) return; // these belong to the browser
      event.preventDefault();
      if (move) step(...move);
      else set("direction", jump);
    });
    const drag = (event) => {
      const box = svg.getBoundingClientRect(), unit = box.width / svg.viewBox.baseVal.width;
      const w = [((event.clientX - box.left) / unit - center[0]) / scale, (center[1] - (event.clientY - box.top) / unit) / scale];
      if (size(w) < 0.05) return;
      set("direction", nearest(values.direction, angle(w)));
      set("length", nearest(values.length, size(w)));
    };
    handle.addEventListener("pointerdown", (event) => {
      held = true;
      handle.setPointerCapture(event.pointerId);
      handle.focus();
      event.preventDefault();
    });
    handle.addEventListener("pointermove", (event) => held && drag(event));
    for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => { held = false; });

    const at = (w) => [center[0] + scale * w[0], center[1] - scale * w[1]];
    const line = (points) => points.map((p, i) => `${i ? "L" : "M"}${at(p).map((v) => v.toFixed(1)).join(" ")}`).join("");

    function arrow(from, to, color) {
      const [a, b] = [at(from), at(to)], length = Math.hypot(b[0] - a[0], b[1] - a[1]);
      if (length < 3) return;
      const d = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
      const head = [0, 1].map((s) => `${b[0] - 9 * d[0] + (s ? 5 : -5) * d[1]} ${b[1] - 9 * d[1] - (s ? 5 : -5) * d[0]}`);
      tag(marks, "line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], stroke: color, "stroke-width": 2.5 });
      tag(marks, "path", { d: `M${b.join(" ")}L${head.join("L")}z`, fill: color });
    }

    function render() {
      const width = Math.max(280, host.clientWidth), wide = width > 600, side = Math.min(width, 430);
      const height = wide ? side : side + 104;
      center = [side / 2 + (wide ? 0 : (width - side) / 2), side / 2];
      scale = side / (2 * SIDE);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      marks.replaceChildren();
      const w = [state.length * Math.cos(state.direction * RAD), state.length * Math.sin(state.direction * RAD)];
      const S = moments(state.inputs_turned), found = compute(S, U, w, RATE, STEPS);
      const lowest = look(S, U, found.best).rho, polar = (r, a) => [r * Math.cos(a), r * Math.sin(a)];
      for (let k = 0; k < WEDGES; k++) { // the error depends on the direction alone: dark rays are directions with a large one
        const from = (2 * Math.PI * (k - 0.5)) / WEDGES, to = (2 * Math.PI * (k + 0.55)) / WEDGES, ray = polar(1, (from + to) / 2);
        const dark = 0.45 * (1 - look(S, U, ray).rho / lowest);
        tag(marks, "path", { d: `${line([[0, 0], polar(SIDE, from), polar(SIDE, to)])}z`, fill: "black", "fill-opacity": dark.toFixed(3) });
      }
      const axis = size(found.best), end = found.best.map((v) => (SIDE * v) / axis);
      tag(marks, "path", { d: line([end.map((v) => -v), end]), stroke: "black", "stroke-width": 1.5, "stroke-dasharray": "6 5" });
      const ellipse = [];
      for (let k = 0; k <= 60; k++) {
        const c = Math.cos((k * Math.PI) / 30), s = Math.sqrt(LOW) * Math.sin((k * Math.PI) / 30), t = state.inputs_turned * RAD;
        ellipse.push([c * Math.cos(t) - s * Math.sin(t), c * Math.sin(t) + s * Math.cos(t)]);
      }
      tag(marks, "path", { d: line(ellipse), fill: "white", "fill-opacity": 0.55, stroke: "#7f7f7f", "stroke-width": 2 });
      tag(marks, "circle", { cx: center[0], cy: center[1], r: scale * size(w), fill: "none", stroke: MOVED, "stroke-width": 1, "stroke-dasharray": "2 4" });
      tag(marks, "path", { d: line([[0, 0], w]), stroke: MOVED, "stroke-width": 1.5 });
      tag(marks, "path", { d: line(found.path), fill: "none", stroke: MOVED, "stroke-width": 2 });
      for (const p of found.path.slice(1)) tag(marks, "circle", { cx: at(p)[0], cy: at(p)[1], r: 2.5, fill: MOVED });
      const steep = size(found.gradient), reach = Math.min(1.6, 0.6 * steep) / (steep || 1);
      arrow(w, w.map((v, i) => v - reach * found.gradient[i]), "black");
      arrow([0, 0], U.map((v) => -v), "#7f7f7f");
      const legend = ["arrow at w: downhill, against the gradient", `blue path: ${STEPS} steps, rate ${RATE}`, "dashed line: the best direction, both signs", "grey: ellipse of the inputs, mean of y x (arrow)"];
      legend.forEach((text, k) => tag(marks, "text", { x: wide ? side + 16 : 4, y: (wide ? 40 : side + 24) + 24 * k }, text));
      const [x, y] = at(w), last = found.path[STEPS], cosine = dot(w, found.gradient) / (size(w) * steep || 1);
      handle.setAttribute("transform", `translate(${x} ${y})`);
      handle.setAttribute("aria-valuenow", state.direction);
      handle.setAttribute("aria-valuetext", `direction ${state.direction} degrees, length ${state.length}, error ${found.rho.toFixed(2)}`);
      return `Direction ${state.direction}°, length ${state.length.toFixed(2)}: error ${found.rho.toFixed(3)}, lowest ${lowest.toFixed(3)}. ` +
        `Gradient: length ${steep.toFixed(3)}, cosine with w ${Math.abs(cosine).toFixed(3)}. ` +
        `After ${STEPS} steps: direction ${angle(last).toFixed(1)}°, length ${size(last).toFixed(2)}, error ${look(S, U, last).rho.toFixed(3)}.`;
    }

    new ResizeObserver(() => state && render()).observe(host);
    return {
      show(next) {
        state = next;
        return render();
      },
    };
  }

  (window.bnLive ||= {}).plane = { compute, mount };
})();
