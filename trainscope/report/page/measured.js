"use strict";
/* Plots of one Diagnosis: lines by column, and one number a layer, layers as rows. */

const ROW = { high: 15, low: 5, all: 900, name: 11 };  // pixels: of a row, of all, that a name needs
const SHAPES = [  // by column: a circle, a square, a triangle
  (x, y) => `M${x - 3.6} ${y}a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z`,
  (x, y) => `M${x - 3.3} ${y - 3.3}h6.6v6.6h-6.6z`,
  (x, y) => `M${x - 4.2} ${y + 3.4}h8.4l-4.2 -7.4z`,
];

const measuredLines = (plot) => ({
  ...plot.spec,
  series: plot.series.map((s) => ({ ...s, colour: colourOf(s.colour), dash: DASHES[s.dash || 0] })),
  lines: (plot.rules || []).map((r) => ({ ...r, colour: colourOf(r.colour) })),
});

const layers = (plot) => ({
  ...plot.spec, names: plot.names, heads: plot.heads,
  series: plot.series.map((s) => ({ ...s, shape: SHAPES[s.colour % SHAPES.length], colour: colourOf(s.colour) })),
});

/* A scale that is linear within a threshold of zero and logarithmic beyond it. */
function symlog(low, high, from, to, linear) {
  const squeezed = (v) => Math.abs(v) <= linear ? v / linear : Math.sign(v) * (1 + Math.log10(Math.abs(v) / linear));
  const a = squeezed(low), b = squeezed(high) === a ? a + 1 : squeezed(high);
  const at = (v) => from + ((squeezed(v) - a) / (b - a)) * (to - from), ticks = [0];
  for (let p = Math.round(Math.log10(linear)); p <= Math.log10(Math.max(Math.abs(low), Math.abs(high))) + 1e-9; p++) {
    for (const value of [Math.pow(10, p), -Math.pow(10, p)]) if (value >= low && value <= high) ticks.push(value);
  }
  return { at, ticks: ticks.filter((t) => t >= low && t <= high), log: false };
}

/* spec: {names, heads: [{row, text}], xlabel, series: [{label, colour, shape, points: [[row, value]]}]};
   the row of a head has no name and no values. */
function drawLayers(box, spec) {
  const width = spec.width || Math.max(260, box.clientWidth), right = width - PAD.right;
  const pitch = Math.max(ROW.low, Math.min(ROW.high, ROW.all / spec.names.length));
  const letters = Math.max(8, Math.min(Math.max(...spec.names.map((name) => name.length)), Math.floor((width * NAMES) / LETTER)));
  const left = 14 + LETTER * letters, bottom = PAD.top + pitch * spec.names.length, height = bottom + PAD.bottom;
  const svg = el("svg", {
    class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0",
    "aria-label": `${spec.title}. ${spec.xlabel} of each layer. Up and down arrow keys read values.`,
  });
  const old = box.querySelector("svg.plot");
  if (old) old.replaceWith(svg); else box.insertBefore(svg, box.firstChild);
  const ends = extent(spec.series.flatMap((s) => s.points.map((p) => p[1])), true);
  const x = scale(ends[0] / 1.25, ends[1] * 1.25, left + 4, right, true), y = (k) => PAD.top + pitch * (k + 0.5);
  const grid = el("g", { class: "grid" }, svg), text = el("g", { class: "ticks" }, svg);
  for (const t of x.ticks) if (x.at(t) >= left && x.at(t) <= right + 1) el("line", { x1: x.at(t), x2: x.at(t), y1: PAD.top, y2: bottom }, grid);
  xTicks(grid, text, x, left, right, bottom);
  el("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }, grid);
  fit(el("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, svg, spec.xlabel), right - left);
  const step = Math.max(1, Math.ceil(ROW.name / pitch));
  spec.names.forEach((name, k) => {
    if (k % step || !name) return;
    const shown = el("text", { x: left - 8, y: y(k) + 4, "text-anchor": "end" }, text, name.length > letters ? "…" + name.slice(1 - letters) : name);
    el("title", {}, shown, name);
  });
  const heads = new Set(spec.heads.map((head) => head.row));
  for (const head of spec.heads) el("text", { x: right, y: y(head.row) + 4, "text-anchor": "end", class: "head" }, text, head.text);
  const starts = (points, k) => !k || [...heads].some((row) => points[k - 1][0] < row && row < points[k][0]);
  for (const s of spec.series) {
    const group = el("g", { "data-series": s.label }, svg);
    el("path", { d: s.points.map((p, k) => `${starts(s.points, k) ? "M" : "L"}${x.at(p[1]).toFixed(1)} ${y(p[0]).toFixed(1)}`).join(""), stroke: s.colour, class: "curve thin" }, group);
    for (const p of s.points) el("path", { d: s.shape(x.at(p[1]), y(p[0])), fill: s.colour, class: "point" }, group);
  }
  const line = el("line", { class: "cross", x1: left, x2: right, visibility: "hidden" }, svg);
  readLayers(box, svg, spec, line, (at) => Math.floor((at - PAD.top) / pitch), y);
}

/* The values of the layer at the pointer, or of the one that the arrow keys have reached. */
function readLayers(box, svg, spec, line, rowAt, y) {
  let row = -1;
  const show = (k) => {
    row = Math.max(0, Math.min(spec.names.length - 1, k));
    if (!spec.names[row]) row = Math.min(spec.names.length - 1, row + 1);
    line.setAttribute("y1", y(row)); line.setAttribute("y2", y(row)); line.setAttribute("visibility", "visible");
    const values = spec.series.map((s) => ({ colour: s.colour, label: s.label, found: s.points.find((p) => p[0] === row) }));
    tip(box, spec.names[row], values.map((v) => ({ ...v, value: v.found ? written(v.found[1]) : "0" })), 0, svg);
    box.querySelector(".tip").style.top = `${(100 * (y(row) + 10)) / svg.viewBox.baseVal.height}%`;
  };
  const hide = () => { line.setAttribute("visibility", "hidden"); untip(box); };
  svg.addEventListener("pointermove", (event) => {
    const at = svg.getBoundingClientRect();
    show(rowAt(((event.clientY - at.top) / at.height) * svg.viewBox.baseVal.height));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") return hide();
    if (move === undefined) return;
    event.preventDefault();
    show(row + move);
  });
}
