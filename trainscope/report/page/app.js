"use strict";
/* Which runs are shown, what is plotted of them, and sortable tables. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = 7, DASHES = ["none", "7 4", "2 3", "9 3 2 3"];
const state = { off: new Set(), seeds: false, full: false, first: false, width: 0 };
const FAR = 30;  // points behind the best at which a setting no longer sets the axis

const colourOf = (s) => `var(--s${s % COLOURS})`;
const dashOf = (s) => DASHES[Math.floor(s / COLOURS) % DASHES.length];
const runsOf = (s) => DATA.settings[s].runs.filter((r) => !state.off.has(r));
const isOn = (s) => runsOf(s).length > 0;

/* The last epoch that curves are drawn of. */
const lastShown = () => (state.first ? DATA.first : Infinity);

/* The mean of the runs shown, epoch by epoch up to the last, over the epochs that most of them have. */
function meanCurve(s, y, byTime, runs = runsOf(s), last = Infinity) {
  const held = new Map();
  for (const r of runs) {
    const run = DATA.runs[r], values = run[y];
    if (!values) continue;
    if (y === "a" && !byTime && run.a0 !== null && run.e.length && run.e[0] > 0) {
      const entry = held.get(0) || { x: 0, v: [], drop: false };
      entry.v.push(run.a0);
      held.set(0, entry);
    }
    for (let k = 0; k < run.e.length; k++) {
      if (values[k] === null || run.e[k] > last) continue;
      const entry = held.get(run.e[k]) || { x: byTime ? run.t[k] : run.e[k], v: [], drop: false };
      entry.v.push(values[k]);
      entry.drop = entry.drop || run.d.includes(run.e[k]);
      held.set(run.e[k], entry);
    }
  }
  const most = Math.max(0, ...[...held.values()].map((entry) => entry.v.length));
  const kept = [...held.entries()].filter(([, entry]) => entry.v.length * 2 > most).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
  const mean = (v) => v.reduce((a, b) => a + b, 0) / v.length;
  return {
    points: kept.map((k) => [k.x, mean(k.v)]),
    band: most > 1 ? kept.map((k) => [k.x, Math.min(...k.v), Math.max(...k.v)]) : [],
    marks: kept.filter((k) => k.drop).map((k) => [k.x, mean(k.v)]),
  };
}

function curves(plot) {
  const series = [], byTime = plot.x === "t";
  DATA.settings.forEach((setting, s) => {
    if (!isOn(s) || !plot.of.includes(s)) return;
    const base = { label: setting.label, colour: colourOf(s), dash: dashOf(s) };
    if (state.seeds) for (const r of runsOf(s)) {
      const run = DATA.runs[r], values = run[plot.y] || [];
      const points = run.e.map((e, k) => [byTime ? run.t[k] : e, e > lastShown() ? null : values[k]]).filter((p) => p[1] !== null && p[1] !== undefined);
      series.push({ ...base, points, thin: true, quiet: true });
    }
    const found = meanCurve(s, plot.y, byTime, undefined, lastShown());
    const rings = plot.y === "a" && setting.early !== null ? found.marks.slice(0, 1) : [];
    series.push({ ...base, ...found, rings });
  });
  const spec = { ...plot.spec, series };
  if (plot.y === "a" && !state.full && !state.first) {
    // Everything is turned so that more is better, and turned back at the end.
    const last = (s) => plot.sign * s.points[s.points.length - 1][1];
    const ends = series.filter((s) => !s.quiet && s.points.length).map(last);
    const tops = series.filter((s) => !s.quiet).flatMap((s) => s.points.map((p) => plot.sign * p[1]));
    if (ends.length) {
      const top = Math.max(...tops), far = plot.percent ? FAR : 10 * FAR * Math.abs(top) / 100;
      const near = ends.some((end) => end > top - far);
      for (const s of series) s.far = near && s.points.length > 0 && last(s) <= top - far;
      const low = Math.min(...ends.filter((end) => end > top - far), top);
      const least = plot.percent ? 1 : Math.abs(top) / 100, bottom = low - 0.4 * Math.max(top - low, least);
      spec.range = plot.sign < 0 ? [-top, -bottom] : [plot.percent ? Math.max(0, bottom) : bottom, top];
      spec.tail = plot.sign < 0;
    }
  }
  return spec;
}

function along(plot) {
  const series = [];
  DATA.settings.forEach((setting, s) => {
    const found = plot.series[s];
    if (found && isOn(s)) series.push({
      label: setting.label, colour: colourOf(s), dash: dashOf(s), knots: true,
      points: found.map((p) => [p[0], p[1]]), band: found.some((p) => p[2] !== p[3]) ? found.map((p) => [p[0], p[2], p[3]]) : [],
    });
  });
  return { ...plot.spec, series };
}

function numbers(plot) {
  const shown = plot.points.filter((p) => isOn(p.s));
  const sign = plot.spec.sign, low = floor(shown, sign), up = sign > 0;
  const range = low === null ? {} : { range: up ? [low[0], low[1]] : [-low[1], -low[0]], tail: !up };
  const under = (points) => (low === null ? [] : points.filter((p) => sign * p[1] < low[2]));
  if (plot.spec.sweep) {
    const lines = [...new Set(plot.points.map((p) => p.line))], series = [];
    lines.forEach((name) => {
      const k = plot.points.find((p) => p.line === name).s;  // a line has its first setting's colour
      const held = shown.filter((p) => p.line === name && p.x !== null).sort((a, b) => a.x - b.x);
      series.push({
        label: name, colour: colourOf(k), dash: dashOf(k), knots: true, points: held.map((p) => [p.x, p.v]),
        outside: under(held.map((p) => [p.x, p.v])),
        errors: held.filter((p) => p.sd).map((p) => [p.x, p.v - p.sd, p.v + p.sd]),
      });
    });
    return { ...plot.spec, ...range, series };
  }
  const series = shown.map((p, k) => ({
    label: DATA.settings[p.s].label, colour: colourOf(p.s), loose: true, points: [[k, p.v]], outside: under([[k, p.v]]),
    errors: p.sd ? [[k, p.v - p.sd, p.v + p.sd]] : [],
    dots: p.vals.length < 2 ? [] : p.vals.map((v, i) => [k + 0.13, v, p.seeds[i] === null ? `run ${i + 1}` : `seed ${p.seeds[i]}`]),
  }));
  return { ...plot.spec, ...range, cats: shortened(shown.map((p) => DATA.settings[p.s].short)), series };
}

/* Where a diverged setting is worse than all others, which would then look alike: the ends of an
   axis without it, and the worst value of the others; all with the sign by which more is better. */
function floor(points, sign) {
  const known = points.filter((p) => !p.lost);
  if (state.full || !known.length) return null;
  const ends = (p) => [p.v - (p.sd || 0), p.v + (p.sd || 0), ...p.vals].map((v) => sign * v);
  const low = Math.min(...known.flatMap(ends)), high = Math.max(...points.flatMap(ends));
  return points.some((p) => sign * p.v < low) ? [low - 0.14 * (high - low || 1), high, low] : null;
}

/* Names without the parts that all of them share. */
function shortened(names) {
  const parts = names.map((name) => name.split(" · "));
  const told = parts.map((own) => own.filter((part) => !parts.every((other) => other.includes(part))).join(" · "));
  return told.every((name) => name) && new Set(told).size === names.length ? told : names;
}

const histogram = (plot) => ({
  ...plot.spec,
  series: plot.series.map((s) => ({
    label: s.label, colour: colourOf(s.colour), points: s.points, band: s.points.map((p) => [p[0], 0, p[1]]),
  })),
  lines: plot.series.map((s) => ({ x: s.mean, colour: colourOf(s.colour) })),
});

function estimate(plot) {
  const colour = colourOf(plot.s), s = DATA.settings[plot.s];
  // The card is about this setting, and shows it also where it is hidden elsewhere.
  const seen = meanCurve(plot.s, "a", false, isOn(plot.s) ? undefined : s.runs);
  const rest = plot.curve;
  const series = [
    { label: `${s.label}, measured`, colour, ...seen },
    { label: "predicted, first stage kept on", colour, dash: "5 4", points: rest.map((p) => [p[0], p[1]]), band: rest.map((p) => [p[0], p[2], p[3]]) },
  ];
  const when = plot.passage;
  if (when) series.push({  // an interval without an end goes on to the edge
    label: when.label, colour: "var(--ink)", points: [[when.median, plot.target]],
    spans: [[when.low, when.high ?? 1e9, plot.target]],
  });
  const shown = [...seen.points.slice(-1).map((p) => p[1]), plot.target, ...rest.map((p) => p[1])].map((v) => plot.sign * v);
  const low = Math.min(...shown), top = Math.max(plot.sign * plot.target, ...rest.map((p) => plot.sign * p[1]));
  const bottom = low - 0.6 * Math.max(top - low, 1), up = plot.sign > 0;
  return { ...plot.spec, series, range: up ? [Math.max(0, bottom), top] : [-top, -bottom], tail: !up, lines: [{ y: plot.target, label: plot.aim }] };
}

const KINDS = { curves, along, numbers, histogram, estimate, lines: measuredLines, layers };

function render() {
  for (const box of document.querySelectorAll(".figure[data-plot]")) {
    const plot = DATA.plots[+box.dataset.plot], area = box.querySelector(".canvas");
    const spec = { title: plot.title, width: state.width, ...KINDS[plot.kind](plot) };
    if (plot.kind === "layers") drawLayers(area, spec); else draw(area, spec);
    if (["histogram", "estimate", "lines", "layers"].includes(plot.kind) || plot.spec.sweep) legend(box.querySelector(".legend"), spec.series);
  }
  for (const chip of document.querySelectorAll(".chip")) {
    const s = +chip.dataset.setting, some = runsOf(s).length, all = DATA.settings[s].runs.length;
    chip.setAttribute("aria-pressed", some === 0 ? "false" : some === all ? "true" : "mixed");
  }
  for (const check of document.querySelectorAll("input[data-run]")) check.checked = !state.off.has(+check.dataset.run);
}

function legend(box, series) {
  box.replaceChildren(...series.map((s) => {
    const item = document.createElement("span"), line = el("svg", { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" });
    el("line", { x1: 1, x2: 21, y1: 5, y2: 5, stroke: s.colour, "stroke-width": 3, "stroke-dasharray": s.dash || "none" }, line);
    item.append(line, s.label);
    return item;
  }));
}

let waiting = 0;
function refresh() {
  clearTimeout(waiting);
  waiting = setTimeout(render, 0);
}

function toggleSetting(s, on) {
  for (const r of DATA.settings[s].runs) if (on) state.off.delete(r); else state.off.add(r);
}

function sortable(table) {
  table.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), column = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down === -1 ? "descending" : "ascending");
    const key = (row) => { const cell = row.children[column], raw = cell.dataset.v ?? cell.textContent.trim(); return raw === "" ? null : raw; };
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const p = key(a), q = key(b);
      if (p === null || q === null) return p === q ? 0 : p === null ? 1 : -1;
      const numeric = p !== "" && q !== "" && !isNaN(p) && !isNaN(q);
      return down * (numeric ? p - q : String(p).localeCompare(String(q)));
    });
    table.tBodies[0].append(...rows);
  }));
}

function start() {
  document.querySelectorAll(".chip").forEach((chip) => chip.addEventListener("click", (event) => {
    const s = +chip.dataset.setting;
    if (event.shiftKey || event.altKey) DATA.settings.forEach((_, k) => toggleSetting(k, k === s));
    else toggleSetting(s, !isOn(s));
    refresh();
  }));
  document.querySelectorAll("input[data-run]").forEach((check) => check.addEventListener("change", () => {
    const r = +check.dataset.run;
    if (check.checked) state.off.delete(r); else state.off.add(r);
    refresh();
  }));
  document.querySelectorAll("[data-show]").forEach((button) => button.addEventListener("click", () => {
    DATA.settings.forEach((_, s) => toggleSetting(s, button.dataset.show === "all"));
    refresh();
  }));
  for (const name of ["seeds", "full", "first"]) {
    const box = document.getElementById(name);
    if (box) box.addEventListener("change", () => { state[name] = box.checked; refresh(); });
  }
  const filter = document.getElementById("filter");
  if (filter) filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    document.querySelectorAll(".chip").forEach((chip) => { chip.hidden = !chip.textContent.toLowerCase().includes(wanted); });
    fold();
  });
  const unfold = document.getElementById("unfold");
  if (unfold) unfold.addEventListener("click", () => { document.querySelector(".chips").classList.toggle("open"); fold(); });
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const text = button.parentNode.querySelector("code").textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "copied"; } catch { button.textContent = "select and copy"; }
  }));
  theme();
  paper();
  DATA.settings.forEach((_, s) => { if (!DATA.on.includes(s)) toggleSetting(s, false); });
  fold();
  wide();
  let width = 0;
  new ResizeObserver(() => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; refresh(); fold(); wide(); } }).observe(document.body);
  render();
}

start();
