// The plane cut by a ReLU net, computed in the page: drag a sample, and the boundaries follow the batch.
// `golden`, `fold`, `cut` and `nearest` are golden_weights, fold_batch, partition and nearest of bnlib.theory.partition;
// a browser test holds them equal.
"use strict";

(() => {
  const SIX = [[3, 2], [8, -1], [9, 3], [11, -2], [14, 4], [15, 0]], BOX = [-3, 21, -9, 11], UNITS = 6, TINY = 1e-12;
  const NETS = { // what of the batch a net uses, and its colour
    "no BN": { mean: false, scale: false, color: "#7f7f7f" },
    "mean only": { mean: true, scale: false, color: "#D55E00" },
    BN: { mean: true, scale: true, color: "#0072B2" },
  };

  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const average = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  const relu = (rows) => rows.map((row) => row.map((v) => Math.max(v, 0)));
  const through = (rows, { weight, bias }) => rows.map((row) => weight.map((w, k) => dot(w, row) + bias[k]));

  function golden(sizes) {
    return sizes.slice(1).map((units, depth) => Array.from({ length: units }, (_, k) =>
      Array.from({ length: sizes[depth] }, (_, j) => Math.cos(2.4 * (k + 1) * (j + 1) + 1.7 * depth))));
  }

  // The layers that a batch makes of weights: BN's statistics taken into weights and biases.
  function fold(batch, weights, { mean = true, scale = true, beta = 0, eps = 0 } = {}) {
    let h = batch;
    return weights.map((weight) => {
      const z = through(h, { weight, bias: weight.map(() => 0) });
      const mu = weight.map((_, k) => average(z.map((row) => row[k])));
      const factor = weight.map((_, k) => (scale ? 1 / Math.sqrt(average(z.map((row) => (row[k] - mu[k]) ** 2)) + eps) : 1));
      const layer = { weight: weight.map((w, k) => w.map((v) => factor[k] * v)), bias: mu.map((m, k) => beta - (mean ? factor[k] * m : 0)) };
      h = relu(through(h, layer));
      return layer;
    });
  }

  // All regions of a rectangle, and the pieces of the boundaries in it, by cutting with one unit after another.
  function cut(layers, [left, right, low, high]) {
    const segments = [];
    let regions = [{ polygon: [[left, low], [right, low], [right, high], [left, high]], maps: [[1, 0, 0], [0, 1, 0]] }], first = 0;
    layers.forEach(({ weight, bias }, depth) => {
      const after = [];
      for (const { polygon, maps } of regions) {
        // every pre-activation of this layer as a x + b y + c
        const lines = weight.map((w, k) => [0, 1, 2].map((i) => dot(w, maps.map((map) => map[i])) + (i === 2 ? bias[k] : 0)));
        const todo = [{ piece: polygon, from: 0 }];
        while (todo.length) {
          const { piece, from } = todo.pop();
          let sides = null, k = from;
          for (; k < lines.length && !sides; k++) sides = halves(piece, lines[k]);
          if (sides) {
            segments.push({ depth, unit: first + k - 1, ends: sides.ends });
            todo.push({ piece: sides.low, from: k }, { piece: sides.high, from: k });
          } else {
            const x = average(piece.map((p) => p[0])), y = average(piece.map((p) => p[1]));
            after.push({ polygon: piece, maps: lines.map((line) => (line[0] * x + line[1] * y + line[2] > 0 ? line : [0, 0, 0])) });
          }
        }
      }
      regions = after;
      first += weight.length;
    });
    return { regions: regions.map((region) => region.polygon), segments };
  }

  // Both sides of a convex polygon along a x + b y + c = 0 and the ends of the cut; null if the line misses it.
  function halves(polygon, [a, b, c]) {
    const size = TINY * ((Math.abs(a) + Math.abs(b)) * Math.max(...polygon.flat().map(Math.abs)) + Math.abs(c));
    const values = polygon.map(([x, y]) => a * x + b * y + c).map((v) => (Math.abs(v) <= size ? 0 : v));
    if (!(Math.min(...values) < 0 && Math.max(...values) > 0)) return null;
    const low = [], high = [], ends = [];
    polygon.forEach((here, i) => {
      const j = (i + 1) % polygon.length, v = values[i], w = values[j];
      if (v <= 0) low.push(here);
      if (v >= 0) high.push(here);
      if (v === 0) ends.push(here);
      else if (v * w < 0) {
        const t = v / (v - w), point = here.map((p, axis) => p + t * (polygon[j][axis] - p));
        ends.push(point);
        low.push(point);
        high.push(point);
      }
    });
    return { low, high, ends };
  }

  // Exact distance of each point from the nearest boundary of all: in its region every unit is affine.
  function nearest(points, layers) {
    return points.map((point) => {
      let h = [...point], slopes = [[1, 0], [0, 1]], best = Infinity;
      for (const { weight, bias } of layers) {
        const z = weight.map((w, k) => dot(w, h) + bias[k]);
        const dz = weight.map((w) => [0, 1].map((axis) => dot(w, slopes.map((s) => s[axis]))));
        z.forEach((v, k) => {
          const length = Math.hypot(...dz[k]);
          if (length > 0) best = Math.min(best, Math.abs(v) / length);
        });
        h = z.map((v) => Math.max(v, 0));
        slopes = dz.map((d, k) => (z[k] > 0 ? d : [0, 0]));
      }
      return best;
    });
  }

  function tag(parent, name, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  function mount(host, values, { refresh }) {
    const batch = SIX.map((point) => [...point]), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    let state, held = null, width = 0;
    svg.setAttribute("role", "group");
    svg.setAttribute("aria-label", "Six samples in the plane and the boundaries of a net. Each sample can be moved with the arrow keys.");
    host.replaceChildren(svg);
    const marks = tag(svg, "g", {});
    const scale = () => width / (BOX[1] - BOX[0]);
    const place = ([x, y]) => [(x - BOX[0]) * scale(), (BOX[3] - y) * scale()];
    const handles = SIX.map((_, i) => {
      const handle = tag(svg, "g", { tabindex: 0, role: "slider", "aria-roledescription": "point in the plane", "aria-label": `sample ${i + 1}`, "aria-valuemin": BOX[0], "aria-valuemax": BOX[1], class: "bn-handle" });
      tag(handle, "circle", { r: 20, fill: "transparent" });
      tag(handle, "circle", { r: 11, fill: "black" });
      tag(handle, "text", { fill: "white", "text-anchor": "middle", dy: "0.36em" }, i + 1);
      handle.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-0.5, 0], ArrowRight: [0.5, 0], ArrowDown: [0, -0.5], ArrowUp: [0, 0.5], PageDown: [0, -2], PageUp: [0, 2], Home: [-99, 0], End: [99, 0] }[event.key];
        if (!step || event.altKey || event.ctrlKey || event.metaKey) return; // Alt and an arrow belong to the browser
        event.preventDefault();
        move(i, batch[i].map((v, axis) => v + step[axis]));
      });
      return handle;
    });

    const under = (event) => {
      const box = svg.getBoundingClientRect(), unit = box.width / (BOX[1] - BOX[0]);
      return [BOX[0] + (event.clientX - box.left) / unit, BOX[3] - (event.clientY - box.top) / unit];
    };
    svg.addEventListener("pointerdown", (event) => {
      if (!event.target.closest(".bn-handle")) return;
      const at = under(event), distance = (i) => Math.hypot(batch[i][0] - at[0], batch[i][1] - at[1]);
      held = SIX.map((_, i) => i).reduce((best, i) => (distance(i) < distance(best) ? i : best)); // of those that overlap
      svg.setPointerCapture(event.pointerId);
      handles[held].focus();
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => svg.hasPointerCapture(event.pointerId) && held !== null && move(held, under(event)));
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { held = null; });

    function move(i, point) {
      batch[i] = point.map((v, axis) => Math.min(BOX[2 * axis + 1], Math.max(BOX[2 * axis], Math.round(10 * v) / 10)));
      refresh();
    }

    function render() {
      width = Math.max(280, host.clientWidth);
      const height = width * (BOX[3] - BOX[2]) / (BOX[1] - BOX[0]), { color, ...how } = NETS[state.net];
      const layers = fold(batch, golden([2, ...Array(state.layers).fill(UNITS)]), { ...how, beta: state.beta, eps: 1e-5 });
      const { regions, segments } = cut(layers, BOX), distances = nearest(batch, layers);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      marks.replaceChildren();
      for (const { depth, ends: [one, other] } of [...segments].reverse()) {
        const [x1, y1] = place(one), [x2, y2] = place(other);
        tag(marks, "line", { x1, y1, x2, y2, stroke: color, "stroke-width": 2.6 - 0.8 * depth, ...(depth ? { "stroke-dasharray": depth === 1 ? "6 3" : "2 3" } : {}) });
      }
      const [zx, zy] = place([0, 0]), [cx, cy] = place([0, 1].map((axis) => average(batch.map((p) => p[axis]))));
      tag(marks, "path", { d: `M${zx - 6} ${zy}h12M${zx} ${zy - 6}v12`, stroke: "black" });
      tag(marks, "text", { x: zx + 8, y: zy + 16, class: "bn-quiet" }, "0");
      tag(marks, "path", { d: `M${cx} ${cy - 8}l8 8l-8 8l-8 -8z`, fill: "white", stroke: "black", "stroke-width": 2 });
      batch.forEach((point, i) => {
        handles[i].setAttribute("transform", `translate(${place(point)})`);
        handles[i].setAttribute("aria-valuenow", point[0]);
        handles[i].setAttribute("aria-valuetext", `${point[0]} to the right, ${point[1]} up; nearest boundary ${distances[i].toFixed(2)} away`);
      });
      const told = batch.map((point) => `(${point.map((v) => +v.toFixed(1)).join(", ")})`).join(" ");
      return `${state.net}, ${state.layers} ${state.layers === 1 ? "layer" : "layers"}, beta ${state.beta}: ${regions.length} regions in view; ` +
        `mean distance of the six samples from the nearest boundary ${average(distances).toFixed(3)}. Samples ${told}.`;
    }

    new ResizeObserver(() => state && render()).observe(host);
    return {
      show(next) {
        state = { net: "BN", layers: 1, beta: 0, ...next };
        return render();
      },
    };
  }

  (window.bnLive ||= {}).partition = { golden, fold, cut, nearest, mount };
})();
