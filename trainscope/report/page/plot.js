"use strict";
/* Line and dot plots as SVG: axes, bands, marks, and values at the pointer or by the arrow keys. */

const SVG = "http://www.w3.org/2000/svg";
const PAD = { left: 52, right: 14, top: 10, bottom: 42 };

function el(name, attributes, parent, text) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

function written(value) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return String(+value.toPrecision(4));
}

function tickText(value, log) {
  if (!log) return String(+value.toPrecision(6));
  const power = Math.round(Math.log10(value));
  return power >= -2 && power <= 3 ? String(+value.toPrecision(3)) : "1e" + power;
}

/* A scale from data to pixels, with its ticks; `whole` ticks are of epochs. */
function scale(low, high, from, to, log, whole) {
  if (log) {
    const a = Math.log10(low), b = Math.log10(high) === a ? a + 1 : Math.log10(high);
    const ticks = [], step = Math.max(1, Math.ceil((b - a) / 6));
    for (let p = Math.ceil(a - 1e-9); p <= b + 1e-9; p += step) ticks.push(Math.pow(10, p));
    if (b - a < 2.2) for (const m of [2, 5]) {  // powers of ten alone are too few on a short axis
      for (let p = Math.floor(a); p <= b; p++) {
        const value = m * Math.pow(10, p);
        if (value >= low && value <= high) ticks.push(value);
      }
    }
    const at = (v) => from + ((Math.log10(Math.max(v, low / 10)) - a) / (b - a)) * (to - from);
    return { at, ticks, log: ticks.every((t) => Number.isInteger(Math.log10(t))) };
  }
  const span = high - low || 1;
  const rough = span / Math.max(2, Math.min(7, Math.abs(to - from) / 42));
  const base = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = Math.max([1, 2, 5, 10].map((m) => m * base).find((s) => s >= rough), whole ? 1 : 0);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; k++) ticks.push(k * step);
  return { at: (v) => from + ((v - low) / span) * (to - from), ticks, log: false };
}

function extent(values, log) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (isFinite(v) && (!log || v > 0)) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low > high ? null : [low, high];
}

function path(points, x, y) {
  return points.map((p, i) => (i ? "L" : "M") + x.at(p[0]).toFixed(1) + " " + y.at(p[1]).toFixed(1)).join("");
}

/* A text in lines of so many letters, broken between words; null where a word is longer. */
function folded(text, letters) {
  const lines = [];
  for (const word of text.replaceAll("LR ", "LR\u00a0").split(" ")) {
    if (word.length > letters) return null;
    const last = lines.length - 1;
    if (lines.length && lines[last].length + 1 + word.length <= letters) lines[last] += " " + word;
    else lines.push(word);
  }
  return lines;
}

/* Text in lines below one another. */
function textLines(parent, lines, at, name) {
  const node = el("text", at, parent);
  lines.forEach((line, k) => el("tspan", { x: at.x, dy: k ? 13 : 0 }, node, line + (k < lines.length - 1 ? " " : "")));
  el("title", {}, node, name);
}

/* spec: {xlabel, ylabel, xlog, ylog, range, cats, series: [{label, colour, dash, points, band, marks,
   dots, outside, spans, thin, quiet, far}], lines: [{y|x, label, colour}]}; a far series sets no axis, and
   what is outside lies under the range and is marked at its edge. */
function draw(box, spec) {
  const width = spec.width || Math.max(260, box.clientWidth), height = spec.height || 300;
  const old = box.querySelector("svg.plot");
  const svg = el("svg", {
    class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0",
    "aria-label": `${spec.title}. ${spec.ylabel} against ${spec.xlabel}. Left and right arrow keys read values.`,
  });
  if (old) old.replaceWith(svg); else box.insertBefore(svg, box.firstChild);
  const shown = spec.series.filter((s) => s.points.length);
  const near = shown.filter((s) => !s.far), setting = near.length ? near : shown;
  const xs = extent(setting.flatMap((s) => s.points.map((p) => p[0])), spec.xlog);
  if (xs && spec.from0) xs[0] = Math.min(0, xs[0]);
  let ys = extent(shown.flatMap((s) => [...s.points.map((p) => p[1]), ...(s.band || []).flatMap((b) => [b[1], b[2]]),
    ...(s.dots || []).map((d) => d[1])]), spec.ylog);
  if (!xs || !ys) {
    el("text", { x: width / 2, y: height / 2, class: "empty", "text-anchor": "middle" }, svg, "Nothing shown: choose a setting above.");
    return;
  }
  // An axis ends where its range does at the worse end, and takes all in at the better one.
  if (spec.range && spec.tail) ys = [Math.min(ys[0], spec.range[0]), spec.range[1]];
  else if (spec.range) ys = [spec.range[0], Math.max(ys[1], spec.range[1])];
  for (const line of spec.lines || []) if (line.y !== undefined) ys = [Math.min(ys[0], line.y), Math.max(ys[1], line.y)];
  if (spec.ylog) ys = [ys[0] / 1.15, ys[1] * 1.15];
  else { const room = (ys[1] - ys[0]) * 0.05 || 1; ys = [ys[0] - (spec.range && !spec.tail ? 0 : room), ys[1] + (spec.tail ? 0 : room)]; }
  const right = width - PAD.right;
  const names = spec.cats ? underPoints(spec.cats, (right - PAD.left) / spec.cats.length) : null;
  if (spec.cats && !names) { svg.remove(); rows(box, spec, shown, ys, width); return; }
  const bottom = height - PAD.bottom - (names ? 13 * (names.deep - 1) : 0);
  const x = spec.cats ? scale(-0.5, spec.cats.length - 0.5, PAD.left, right)
    : spec.xlinear ? symlog(xs[0], xs[1], PAD.left + 6, right, spec.xlinear)
    : scale(xs[0], xs[1], PAD.left + 6, right, spec.xlog, spec.from0);
  const y = scale(ys[0], ys[1], bottom, PAD.top, spec.ylog);
  axes(svg, spec, x, y, right, bottom, height, names);
  const id = "clip" + Math.random().toString(36).slice(2);
  const clip = el("clipPath", { id }, el("defs", {}, svg));
  el("rect", { x: PAD.left, y: PAD.top - 6, width: right - PAD.left + 8, height: bottom - PAD.top + 7 }, clip);
  const area = el("g", { "clip-path": `url(#${id})` }, svg);
  for (const line of spec.lines || []) rule(area, line, x, y, right, bottom);
  for (const s of shown) lineOf(area, s, x, y);
  const taken = [];
  const outside = shown.flatMap((s) => (s.outside || []).map((p) => [s, p]));
  for (const [s, p] of outside.sort((a, b) => a[1][0] - b[1][0])) beyond(svg, s, p, x, right, bottom, taken, spec);
  if (!spec.cats) pointer(box, svg, shown, spec, x, y, right, bottom);
  else hover(box, svg, shown, spec, x, y);
}

/* The names under points, in up to three lines; null where they do not fit. */
function underPoints(cats, room) {
  const lines = cats.map((name) => folded(name, Math.floor((room - 4) / 6.6)));
  const deep = Math.max(1, ...lines.map((own) => (own ? own.length : 9)));
  return deep > 3 ? null : { lines, deep };
}

function axes(svg, spec, x, y, right, bottom, height, names) {
  const grid = el("g", { class: "grid" }, svg), text = el("g", { class: "ticks" }, svg);
  for (const t of y.ticks) {
    el("line", { x1: PAD.left, x2: right, y1: y.at(t), y2: y.at(t) }, grid);
    el("text", { x: PAD.left - 7, y: y.at(t) + 3.5, "text-anchor": "end" }, text, tickText(t, y.log));
  }
  if (spec.cats) {
    names.lines.forEach((lines, k) => textLines(text, lines, { x: x.at(k), y: bottom + 17, "text-anchor": "middle" }, spec.cats[k]));
  } else xTicks(grid, text, x, PAD.left, right, bottom);
  el("line", { x1: PAD.left, x2: right, y1: bottom, y2: bottom, class: "axis" }, grid);
  const along = el("text", { x: (PAD.left + right) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, svg, spec.xlabel);
  const up = el("text", { x: -(PAD.top + bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle", class: "label" }, svg, spec.ylabel);
  fit(along, right - PAD.left);
  fit(up, bottom - PAD.top + 8);
}

/* The name of an axis in a smaller type where it is longer than the axis. */
function fit(label, room) {
  const long = label.getComputedTextLength();
  if (long > room) label.style.fontSize = `${(12 * room) / long}px`;
}

/* Numbers along the bottom; where two would touch, the one that comes later among the ticks goes. */
function xTicks(grid, text, x, left, right, bottom) {
  const taken = [];
  for (const t of x.ticks) {
    if (x.at(t) > right + 1 || x.at(t) < left - 1) continue;
    const said = tickText(t, x.log), half = said.length * 3.3 + 4;
    if (taken.some(([a, b]) => x.at(t) - half < b && x.at(t) + half > a)) continue;
    taken.push([x.at(t) - half, x.at(t) + half]);
    el("line", { x1: x.at(t), x2: x.at(t), y1: bottom, y2: bottom + 4, class: "tick" }, grid);
    el("text", { x: x.at(t), y: bottom + 17, "text-anchor": "middle" }, text, said);
  }
}

/* A value beyond the axis: an arrow at its edge, with the value; texts that would touch stack up. */
function beyond(svg, s, p, x, right, bottom, taken, spec) {
  const over = spec.tail, cx = x.at(p[0]), cy = over ? PAD.top + 9 : bottom - 9, left = cx > right - 110, wide = 112;
  const from = left ? cx - wide : cx, level = [0, 1, 2, 3, 4, 5, 6, 7].find((k) => !taken.some((one) =>
    one.level === k && from < one.from + wide && from + wide > one.from)) ?? 8;
  taken.push({ level, from });
  const group = el("g", { class: "below" }, svg);
  el("path", { d: over ? `M${cx - 5.5} ${cy + 4}h11l-5.5 -9.5z` : `M${cx - 5.5} ${cy - 4}h11l-5.5 9.5z`, fill: s.colour, class: "mark" }, group);
  el("text", { x: cx + (left ? -9 : 9), y: cy + 4 - (over ? -15 : 15) * level, "text-anchor": left ? "end" : "start" }, group, lost(p[1], spec));
}

const lost = (value, spec) => `${spec.unit === "%" ? value.toFixed(1) : +value.toPrecision(4)}${spec.unit ? ` ${spec.unit}` : ""}, diverged`;

function rule(area, line, x, y, right, bottom) {
  const at = line.y !== undefined
    ? { x1: PAD.left, x2: right, y1: y.at(line.y), y2: y.at(line.y) }
    : { x1: x.at(line.x), x2: x.at(line.x), y1: PAD.top, y2: bottom };
  el("line", { ...at, class: "rule", stroke: line.colour || "var(--ink-2)" }, area);
  if (line.label) {
    const where = line.y !== undefined ? { x: PAD.left + 6, y: y.at(line.y) - 5 } : { x: x.at(line.x) + 4, y: bottom - 6 };
    el("text", { ...where, class: "rule-label" }, area, line.label);
  }
}

function lineOf(area, s, x, y) {
  const group = el("g", { "data-series": s.label }, area);
  if (s.band && s.band.length > 1) {
    const up = s.band.map((b) => [b[0], b[2]]), down = s.band.map((b) => [b[0], b[1]]).reverse();
    el("path", { d: path(up, x, y) + "L" + path(down, x, y).slice(1) + "Z", fill: s.colour, class: "band" }, group);
  }
  for (const d of s.dots || []) el("circle", { cx: x.at(d[0]), cy: y.at(d[1]), r: 2.4, fill: s.colour, class: "seed" }, group);
  for (const e of s.spans || []) el("line", { x1: x.at(e[0]), x2: x.at(e[1]), y1: y.at(e[2]), y2: y.at(e[2]), stroke: s.colour, class: "span" }, group);
  for (const e of s.errors || []) el("line", { x1: x.at(e[0]), x2: x.at(e[0]), y1: y.at(e[1]), y2: y.at(e[2]), stroke: s.colour, "stroke-width": 1.6 }, group);
  if (s.points.length > 1 && !s.loose) el("path", {
    d: path(s.points, x, y), stroke: s.colour, "stroke-dasharray": s.dash || "none", class: s.thin ? "curve thin" : "curve",
  }, group);
  if (s.points.length === 1 || s.loose || s.knots) for (const p of s.points) {
    el("circle", { cx: x.at(p[0]), cy: y.at(p[1]), r: s.knots ? 3 : 5, fill: s.colour, class: "point" }, group);
  }
  for (const m of s.rings || []) {
    const ring = el("circle", { cx: x.at(m[0]), cy: y.at(m[1]), r: 9, stroke: s.colour, class: "ring" }, group);
    el("title", {}, ring, `${s.label}: decayed too early`);
  }
  for (const [cx, cy] of apart((s.marks || []).map((m) => [x.at(m[0]), y.at(m[1])]))) {
    el("path", { d: `M${cx - 5.5} ${cy - 6}h11l-5.5 9.5z`, fill: s.colour, class: "mark" }, group);
  }
}

/* Marks that stand apart: under a small LR the sum of LR hardly grows, and drops would pile up. */
function apart(places) {
  const kept = [];
  for (const at of places) {
    const last = kept[kept.length - 1];
    if (!last || Math.hypot(at[0] - last[0], at[1] - last[1]) >= 14) kept.push(at);
  }
  return kept;
}

/* The value of every series at the pointer's x, or at the step that the arrow keys have reached. */
function pointer(box, svg, shown, spec, x, y, right, bottom) {
  const places = [...new Set(shown.filter((s) => !s.quiet).flatMap((s) => s.points.map((p) => p[0])))]
    .filter((place) => x.at(place) <= right + 1).sort((a, b) => a - b);
  const cross = el("line", { class: "cross", y1: PAD.top, y2: bottom, visibility: "hidden" }, svg);
  const dots = el("g", {}, svg);
  let step = -1;
  const show = (place) => {
    cross.setAttribute("x1", x.at(place)); cross.setAttribute("x2", x.at(place));
    cross.setAttribute("visibility", "visible");
    dots.replaceChildren();
    const rows = [];
    for (const s of shown) {
      if (s.quiet) continue;
      const found = near(s.points, place, spec.xlog);
      if (!found) continue;
      el("circle", { cx: x.at(found[0]), cy: Math.min(bottom, y.at(found[1])), r: 3.5, fill: s.colour, class: "read" }, dots);
      rows.push({ colour: s.colour, label: s.label, value: written(found[1]), sort: found[1] });
    }
    rows.sort((a, b) => b.sort - a.sort);
    tip(box, `${spec.xshort || spec.xlabel} ${written(place)}`, rows, x.at(place), svg);
  };
  const hide = () => { cross.setAttribute("visibility", "hidden"); dots.replaceChildren(); untip(box); };
  svg.addEventListener("pointermove", (event) => {
    const at = svg.getBoundingClientRect(), px = ((event.clientX - at.left) / at.width) * svg.viewBox.baseVal.width;
    step = places.reduce((best, p, k) => (Math.abs(x.at(p) - px) < Math.abs(x.at(places[best]) - px) ? k : best), 0);
    show(places[step]);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") return hide();
    if (move === undefined || !places.length) return;
    event.preventDefault();
    step = Math.max(0, Math.min(places.length - 1, step + move));
    show(places[step]);
  });
}

function hover(box, svg, shown, spec, x, y, inRows) {
  const all = shown.flatMap((s) => s.points.map((p) => ({ s, p })));
  let step = -1;
  const show = ({ s, p }) => tip(box, spec.cats[Math.round(p[0])], [
    { colour: s.colour, label: "mean", value: written(p[1]) },
    ...(s.dots || []).map((d, k) => ({ colour: s.colour, label: d[2] || `seed ${k}`, value: written(d[1]) })),
  ], inRows ? 0 : x.at(p[0]), svg);
  const place = inRows ? y : x;  // of a setting
  svg.addEventListener("pointermove", (event) => {
    const at = svg.getBoundingClientRect(), scaled = svg.viewBox.baseVal.width / at.width;
    const where = (inRows ? event.clientY - at.top : event.clientX - at.left) * scaled;
    show(all.reduce((best, one) => (Math.abs(place.at(one.p[0]) - where) < Math.abs(place.at(best.p[0]) - where) ? one : best)));
  });
  svg.addEventListener("pointerleave", () => untip(box));
  svg.addEventListener("blur", () => untip(box));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") untip(box);
    if (!move) return;
    event.preventDefault();
    step = Math.max(0, Math.min(all.length - 1, step + move));
    show(all[step]);
  });
}

/* The point of a series at or just before a place; none outside its range. */
function near(points, place, log) {
  if (!points.length || place < points[0][0] * (1 - 1e-9)) return null;
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (points[middle][0] <= place * (1 + 1e-9)) low = middle; else high = middle - 1;
  }
  const last = low === points.length - 1, found = points[low];
  if (last && place > found[0] * (log ? 1.05 : 1) + (log ? 0 : 0.5)) return null;
  return found;
}

function tip(box, head, rows, px, svg) {
  let node = box.querySelector(".tip");
  if (!node) { node = document.createElement("div"); node.className = "tip"; node.setAttribute("role", "status"); box.appendChild(node); }
  node.replaceChildren();
  const title = document.createElement("strong");
  title.textContent = head;
  node.appendChild(title);
  for (const row of rows.slice(0, 14)) {
    const line = document.createElement("div"), dot = document.createElement("i"), value = document.createElement("b");
    dot.style.background = row.colour;
    value.textContent = row.value;
    line.append(dot, row.label + " ", value);
    node.appendChild(line);
  }
  const share = px / svg.viewBox.baseVal.width;
  node.style.left = share < 0.5 ? `calc(${share * 100}% + 14px)` : "auto";
  node.style.right = share < 0.5 ? "auto" : `calc(${(1 - share) * 100}% + 14px)`;
  node.hidden = false;
}

function untip(box) {
  const node = box.querySelector(".tip");
  if (node) node.hidden = true;
}
