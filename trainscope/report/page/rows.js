"use strict";
/* One number a setting, settings as rows: where their names are too long to stand under points. */

const NAMES = 0.42;  // of the width, at most
const LETTER = 6.3;  // pixels

function rows(box, spec, shown, ys, width) {
  const longest = Math.max(...spec.cats.map((name) => name.length));
  const letters = Math.max(8, Math.min(longest, Math.floor((width * NAMES) / LETTER)));
  const lines = spec.cats.map((name) => folded(name, letters) || cut(name, letters));
  const left = 14 + LETTER * Math.max(...lines.flat().map((line) => line.length));
  const tops = [];
  let bottom = PAD.top;
  for (const own of lines) { tops.push(bottom); bottom += 13 * own.length + 9; }
  const right = width - PAD.right, height = bottom + PAD.bottom;
  const svg = el("svg", {
    class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0",
    "aria-label": `${spec.title}. ${spec.ylabel} of each setting. Left and right arrow keys read values.`,
  });
  box.insertBefore(svg, box.firstChild);
  const x = scale(ys[0], ys[1], left + 4, right), y = { at: (k) => tops[Math.round(k)] + (13 * lines[Math.round(k)].length + 9) / 2 };
  const grid = el("g", { class: "grid" }, svg), text = el("g", { class: "ticks" }, svg);
  for (const t of x.ticks) el("line", { x1: x.at(t), x2: x.at(t), y1: PAD.top, y2: bottom }, grid);
  xTicks(grid, text, x, left, right, bottom);
  el("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }, grid);
  lines.forEach((own, k) => textLines(text, own, { x: left - 8, y: y.at(k) + 4 - 6.5 * (own.length - 1), "text-anchor": "end" }, spec.cats[k]));
  fit(el("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, svg, spec.ylabel), right - left);
  for (const s of shown) rowOf(svg, s, x, y, spec.tail ? right : left, spec);
  hover(box, svg, shown, spec, x, y, true);
}

function rowOf(svg, s, x, y, edge, spec) {
  const [k, value] = s.points[0], cy = y.at(k);
  if ((s.outside || []).length) {
    const group = el("g", { class: "below" }, svg);
    const over = spec.tail, way = over ? -1 : 1;
    el("path", { d: `M${edge + 12 * way} ${cy - 5.5}v11l${-9.5 * way} -5.5z`, fill: s.colour, class: "mark" }, group);
    el("text", { x: edge + 17 * way, y: cy + 4, "text-anchor": over ? "end" : "start" }, group, lost(value, spec));
    return;
  }
  const group = el("g", { "data-series": s.label }, svg);
  for (const d of s.dots || []) el("circle", { cx: x.at(d[1]), cy: cy + 7, r: 2.4, fill: s.colour, class: "seed" }, group);
  for (const e of s.errors || []) el("line", { x1: x.at(e[1]), x2: x.at(e[2]), y1: cy, y2: cy, stroke: s.colour, "stroke-width": 1.6 }, group);
  el("circle", { cx: x.at(value), cy, r: 5, fill: s.colour, class: "point" }, group);
}

/* A name in pieces of so many letters: one of its words is longer. */
function cut(name, letters) {
  const pieces = [];
  for (let k = 0; k < name.length; k += letters) pieces.push(name.slice(k, k + letters));
  return pieces;
}
