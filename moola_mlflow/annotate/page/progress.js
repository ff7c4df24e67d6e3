// How far the session is: counts, pace, labels by class, and the detector's mAP on the blind windows.

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 268, height: 74, left: 30, right: 8, top: 8, bottom: 18 };
const $ = (id) => document.getElementById(id);

function drawn(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function pair(list, term, value) {
  const box = document.createElement("div");
  const dt = document.createElement("dt");
  const dd = document.createElement("dd");
  dt.textContent = term;
  dd.textContent = value;
  box.append(dt, dd);
  list.append(box);
}

export function showProgress(progress, classes) {
  const figures = $("figures");
  figures.replaceChildren();
  pair(figures, "Looked at", progress.looked_at);
  pair(figures, "Kept", progress.kept);
  pair(figures, "Keeper rate", progress.looked_at ? `${Math.round(100 * progress.keeper_rate)} %` : "–");
  pair(figures, "Skipped", progress.skipped);
  pair(figures, "Minutes", progress.minutes.toFixed(progress.minutes < 10 ? 1 : 0));
  pair(figures, "Seconds each", progress.seconds_per_window ? progress.seconds_per_window.toFixed(1) : "–");
  if (progress.agreement) {
    pair(figures, "Kappa", progress.agreement.kappa?.toFixed(2) ?? "–");
    pair(figures, "Spans agree", progress.agreement.spans == null ? "–" : `${Math.round(100 * progress.agreement.spans)} %`);
    pair(figures, "Shared", progress.agreement.windows);
  }
  showTally(progress.by_class, classes);
  showCurve(progress.map);
  showRefit(progress);
}

function showTally(counts, classes) {
  const names = [...classes, "none"];
  const most = Math.max(1, ...names.map((name) => counts[name] ?? 0));
  $("tally").replaceChildren(...names.map((name, index) => {
    const row = document.createElement("li");
    row.dataset.tone = name === "none" ? "none" : index;
    const label = document.createElement("span");
    label.className = "name";
    label.textContent = name === "none" ? "nothing here" : name;
    const bar = document.createElement("span");
    bar.className = "bar";
    const fill = bar.appendChild(document.createElement("span"));
    fill.style.width = `${(100 * (counts[name] ?? 0)) / most}%`;
    const count = document.createElement("span");
    count.className = "count";
    count.textContent = counts[name] ?? 0;
    row.append(label, bar, count);
    return row;
  }));
}

function showRefit({ refit, map }) {
  let text = refit.running ? "A detector is being fitted." : "The detector is fitted after the first decisions.";
  if (refit.at) text = `The last detector was fitted on ${refit.at} windows.`;
  if (refit.at && refit.running) text += " A new one is being fitted.";
  if (refit.failed) text = `The last fit failed: ${refit.failed}`;
  if (refit.at && !map.length) text += " Too few blind windows for its mAP yet.";
  $("refit").textContent = text;
}

function showCurve(points) {
  const figure = $("curve");
  figure.replaceChildren();
  figure.hidden = !points.length;
  if (!points.length) return;
  const last = points.at(-1);
  const { width, height, left, right, top, bottom } = SIZE;
  const x = (value) => left + (value / last[0]) * (width - left - right);
  const y = (value) => height - bottom - value * (height - top - bottom);
  const said = `mAP on blind windows: ${last[1].toFixed(2)} after ${last[0]} windows`;
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said });
  for (const level of [0, 0.5, 1]) {
    picture.append(drawn("line", { x1: left, x2: width - right, y1: y(level), y2: y(level), class: "level" }));
    picture.append(drawn("text", { x: left - 6, y: y(level) + 3.5, "text-anchor": "end" }, level));
  }
  picture.append(drawn("text", { x: left, y: height - 4 }, "0"));
  picture.append(drawn("text", { x: width - right, y: height - 4, "text-anchor": "end" }, `${last[0]} windows`));
  picture.append(drawn("polyline", { points: points.map(([n, value]) => `${x(n)},${y(value)}`).join(" ") }));
  for (const [n, value] of points) picture.append(drawn("circle", { cx: x(n), cy: y(value), r: 2.5 }));
  const caption = document.createElement("figcaption");
  const figureOf = document.createElement("strong");
  figureOf.textContent = last[1].toFixed(2);
  caption.append("mAP on blind windows ", figureOf);
  figure.append(caption, picture);
}
