// The batch as points, computed in the page: drag one sample, and all outputs move.
// `forward` is bnlib.scratch.batchnorm.batchnorm_forward for one channel; a browser test holds the two equal.
"use strict";

(() => {
  const SIX = [3, 8, 9, 11, 14, 15], LOW = 0, HIGH = 30, EPS = 1e-5;
  const INPUT = "#7f7f7f", OUTPUT = "#0072B2";

  function forward(x, gamma, beta, eps) {
    const m = x.length, mean = (v) => v.reduce((a, b) => a + b, 0) / m;
    const mu = mean(x);
    let xc = x.map((v) => v - mu);
    const rest = mean(xc);
    xc = xc.map((v) => v - rest);
    const variance = mean(xc.map((v) => v * v)), std = Math.sqrt(variance + eps);
    return { y: xc.map((v) => (gamma * v) / std + beta), mu: mu + rest, variance };
  }

  function tag(parent, name, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function mount(host, values, { set, refresh }) {
    const x = [...SIX];
    let state, moved = 5;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", "Six samples and their outputs. Each sample can be moved with the arrow keys.");
    host.replaceChildren(svg);
    const marks = tag(svg, "g", {});
    const handles = SIX.map((_, i) => {
      const handle = tag(svg, "g", { tabindex: 0, role: "slider", "aria-label": `sample ${i + 1}`, "aria-valuemin": LOW, "aria-valuemax": HIGH, class: "bn-handle" });
      tag(handle, "circle", { r: 22, fill: "transparent" });
      tag(handle, "circle", { r: 12, fill: INPUT });
      tag(handle, "text", { fill: "white", "text-anchor": "middle", dy: "0.36em" }, i + 1);
      handle.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5, Home: -HIGH, End: HIGH }[event.key];
        if (!step || event.altKey || event.ctrlKey || event.metaKey) return; // Alt and an arrow belong to the browser
        event.preventDefault();
        move(i, x[i] + step);
      });
      return handle;
    });

    // The points overlap on a narrow screen, so the nearest one is taken, wherever in its neighbourhood one presses.
    let held = null;
    const under = (event) => {
      const box = svg.getBoundingClientRect();
      return LOW + ((event.clientX - box.left - 16) / (box.width - 32)) * (HIGH - LOW);
    };
    svg.addEventListener("pointerdown", (event) => {
      if (!event.target.closest(".bn-handle")) return;
      const distance = (i) => Math.abs(x[i] - under(event)) - (i === moved ? 1e-6 : 0); // of two on one place the last moved
      held = SIX.map((_, i) => i).reduce((best, i) => (distance(i) < distance(best) ? i : best));
      svg.setPointerCapture(event.pointerId);
      handles[held].focus();
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => svg.hasPointerCapture(event.pointerId) && held !== null && move(held, under(event)));
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });

    function move(i, value) {
      moved = i;
      x[i] = Math.min(HIGH, Math.max(LOW, Math.round(value)));
      if (i !== 5 || !values.sample_6) return refresh();
      const near = values.sample_6.map((v) => Math.abs(v - x[5]));
      set("sample_6", near.indexOf(Math.min(...near)));
    }

    function render() {
      const width = Math.max(280, host.clientWidth), height = 240, up = 88, down = 180, radius = width < 480 ? 9 : 12;
      const at = (v) => 16 + ((v - LOW) / (HIGH - LOW)) * (width - 32), out = (v) => width / 2 + (v * (width - 32)) / 10;
      const { y, mu, variance } = forward(x, state.gamma, state.beta, EPS), sd = Math.sqrt(variance);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      marks.replaceChildren();
      for (const level of [up, down]) tag(marks, "line", { x1: 0, x2: width, y1: level, y2: level, stroke: "#b0b0b0" });
      tag(marks, "text", { x: 2, y: up - 18, class: "bn-quiet" }, "inputs x");
      tag(marks, "text", { x: 2, y: down - 18, fill: OUTPUT }, "outputs y");
      tag(marks, "line", { x1: at(mu - sd), x2: at(mu + sd), y1: 44, y2: 44, stroke: "black", "stroke-width": 3 });
      tag(marks, "path", { d: `M${at(mu) - 8} 36h16l-8 14z`, fill: "black" });
      const words = `mean ${mu.toFixed(2)}, standard deviation ${sd.toFixed(2)}`, half = 3.6 * words.length;
      tag(marks, "text", { x: Math.min(width - half, Math.max(half, at(mu))), y: 24, "text-anchor": "middle" }, words);
      for (let tick = -4; tick <= 4; tick += 2) tag(marks, "text", { x: Math.min(width - 8, Math.max(8, out(tick))), y: down + 38, "text-anchor": "middle", class: "bn-quiet" }, tick);
      y.forEach((v, i) => {
        tag(marks, "line", { x1: at(x[i]), x2: out(v), y1: up, y2: down, stroke: i === moved ? "black" : "#b0b0b0" });
        tag(marks, "circle", { cx: out(v), cy: down, r: radius, fill: OUTPUT });
        tag(marks, "text", { x: out(v), y: down, dy: "0.36em", fill: "white", "text-anchor": "middle" }, i + 1);
        handles[i].children[1].setAttribute("r", radius);
        handles[i].setAttribute("transform", `translate(${at(x[i])} ${up})`);
        handles[i].setAttribute("aria-valuenow", x[i]);
        handles[i].setAttribute("aria-valuetext", `input ${x[i]}, output ${v.toFixed(2)}`);
      });
      return `Inputs ${x.join(", ")}: mean ${mu.toFixed(2)}, standard deviation ${sd.toFixed(2)}. Outputs ${y.map((v) => v.toFixed(2)).join(", ")}.`;
    }

    new ResizeObserver(() => state && render()).observe(host);
    return {
      show(next) {
        state = { gamma: 1, beta: 0, ...next };
        if (next.sample_6 !== undefined) x[5] = next.sample_6;
        return render();
      },
    };
  }

  (window.bnLive ||= {}).batch = { forward, mount };
})();
