// Draw the figures of a page, and step through the windows of a chart by button or key.
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
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
