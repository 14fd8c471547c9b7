"use strict";
/* What fits: settings folded away, tables wider than the page, paper; and the theme. */

const PAPER = 400;  // pixels

/* Settings beyond the first rows are folded away: a button says how many, and unfolds them. */
function fold() {
  const box = document.querySelector(".chips"), button = document.getElementById("unfold");
  if (!box) return;
  const open = box.classList.contains("open");
  box.classList.remove("open", "cut");
  box.scrollTo(0, 0);
  const edge = box.getBoundingClientRect();
  const places = [...box.children].map((chip) => chip.getBoundingClientRect()).filter((at) => at.width);
  const away = places.some((at) => at.bottom > edge.bottom + 1 || at.right > edge.right + 1);
  const count = places.filter((at) => at.top > edge.bottom - 9 || at.left > edge.right - 30).length;
  box.classList.toggle("open", open && away);
  box.classList.toggle("cut", !open && away);
  button.hidden = !away;
  button.textContent = open ? "▴ fewer" : `▾ ${count || ""} more`;
  button.setAttribute("aria-expanded", String(open && away));
}

/* A table that is wider than its place says so. */
function wide() {
  for (const box of document.querySelectorAll(".scroll")) {
    const more = box.scrollWidth > box.clientWidth + 2;
    box.classList.toggle("wider", more && box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    let hint = box.previousElementSibling;
    if (!hint || !hint.classList.contains("hint")) {
      if (!more) continue;
      hint = document.createElement("p");
      hint.className = "aside screen hint";
      hint.textContent = "More columns to the right: scroll the table sideways →";
      box.before(hint);
      box.addEventListener("scroll", wide, { passive: true });
    }
    hint.hidden = !more;
  }
}

/* On paper everything is open, and plots are drawn at the width of a column. */
function paper() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    if (closed.length <= 60) closed.forEach((item) => { item.open = true; });
    state.width = PAPER;
    render();
  });
  addEventListener("afterprint", () => {
    closed.forEach((item) => { item.open = false; });
    state.width = 0;
    render();
  });
}

function theme() {
  const button = document.getElementById("theme"), root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
  try { const kept = localStorage.getItem("trainscope-theme"); if (kept) root.dataset.theme = kept; } catch { /* no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("trainscope-theme", root.dataset.theme); } catch { /* no storage */ }
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  document.getElementById("print").addEventListener("click", () => window.print());
  label();
}
