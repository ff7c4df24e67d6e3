// Draw the figures of a page, and step through the windows of a chart by button or key.
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);

// The times of a window: one a minute from the first on, or the numbers of its bars.
function times({ first, num }) {
  if (typeof first === "number") return Array.from({ length: num }, (_, k) => first + k);
  const start = Date.parse(`${first}Z`);
  return Array.from({ length: num }, (_, k) => new Date(start + 60000 * k).toISOString().slice(0, 19));
}

for (const figure of Object.values(figures)) {
  for (const step of (figure.layout.sliders || []).flatMap((slider) => slider.steps)) {
    const [trace] = step.args;
    if (!Array.isArray(trace.x[0])) trace.x = [times(trace.x[0])];
  }
}
const config = { responsive: true, displaylogo: false };
for (const [id, figure] of Object.entries(figures)) Plotly.newPlot(id, figure.data, figure.layout, config);

function steps(plot) {
  return plot.layout && plot.layout.sliders && plot.layout.sliders.length ? plot.layout.sliders[0] : null;
}

function show(plot, change) {
  const slider = steps(plot);
  const next = Math.min(Math.max((slider.active || 0) + change, 0), slider.steps.length - 1);
  const [prices, around] = slider.steps[next].args;
  Plotly.update(plot, prices, { ...around, "sliders[0].active": next });
}

let last = null;
for (const plot of document.querySelectorAll(".plot > div")) {
  plot.addEventListener("pointerenter", () => { if (steps(plot)) last = plot; });
}
for (const button of document.querySelectorAll("button[data-plot]")) {
  button.addEventListener("click", () => {
    last = document.getElementById(button.dataset.plot);
    show(last, Number(button.dataset.step));
  });
}
document.addEventListener("keydown", (event) => {
  const change = { n: 1, ArrowRight: 1, p: -1, ArrowLeft: -1 }[event.key];
  if (!change || event.ctrlKey || event.altKey || event.metaKey) return;
  const all = [...document.querySelectorAll(".plot > div")].filter(steps);
  const seen = all.find((plot) => plot.getBoundingClientRect().bottom > 0);
  const plot = last || seen || all[0];
  if (!plot) return;
  event.preventDefault();
  show(plot, change);
});
