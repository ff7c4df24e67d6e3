// The chart of a window: candlesticks, volume below, exchange time on the axis. plotly draws; it handles no mouse.

const MARGIN = { left: 12, right: 62, top: 30, bottom: 30 };
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440];
const PRICES = { low: 0.24, high: 1 };
const VOLUMES = { low: 0, high: 0.17 };
const JUMP_MS = 300_000;
const APART = 76; // pixels between two labels of the axis

export function decimalsOf(values) {
  for (let decimals = 0; decimals < 6; decimals += 1) {
    const scale = 10 ** decimals;
    if (values.every((value) => Math.abs(value * scale - Math.round(value * scale)) < 1e-4)) return decimals;
  }
  return 6;
}

export function clock(time) {
  return time.slice(11, 16);
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    up: of("up"), down: of("down"), faded: of("faded"), grid: of("grid"), text: of("muted"),
    font: getComputedStyle(document.body).fontFamily,
  };
}

function joined(before, bars, after) {
  const all = {};
  for (const key of ["time", "open", "high", "low", "close", "volume"]) {
    all[key] = bars[key] && [...(before?.[key] ?? []), ...bars[key], ...(after?.[key] ?? [])];
  }
  return all;
}

function ticks(times, first, width) {
  const room = Math.max(2, Math.floor(width / APART));
  const step = STEPS.find((minutes) => times.length / minutes <= room) ?? STEPS.at(-1);
  const values = [];
  const texts = [];
  let day = null;
  times.forEach((time, index) => {
    const minutes = Number(time.slice(11, 13)) * 60 + Number(time.slice(14, 16));
    if (minutes % step || index < 2 || index > times.length - 2) return;
    if (values.length && ((index + first - values.at(-1)) * width) / times.length < APART * 0.7) return; // after a gap
    values.push(index + first);
    texts.push(time.slice(0, 10) === day ? clock(time) : `${clock(time)}<br>${time.slice(0, 10)}`);
    day = time.slice(0, 10);
  });
  return { values, texts };
}

// Dotted lines where the clock jumps by more than a session's short pause.
function jumps(times, first, colour) {
  const lines = [];
  for (let index = 1; index < times.length; index += 1) {
    if (Date.parse(`${times[index]}Z`) - Date.parse(`${times[index - 1]}Z`) <= JUMP_MS) continue;
    const x = index + first - 0.5;
    lines.push({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: colour, width: 1, dash: "dot" } });
  }
  return lines;
}

function traces(all, first, length, look) {
  const groups = { window: [], context: [] };
  all.time.forEach((_, index) => {
    groups[index + first >= 0 && index + first < length ? "window" : "context"].push(index);
  });
  const out = [];
  for (const [name, indices] of Object.entries(groups)) {
    if (!indices.length) continue;
    const pick = (key) => indices.map((index) => all[key][index]);
    const [up, down] = name === "window" ? [look.up, look.down] : [look.faded, look.faded];
    const x = indices.map((index) => index + first);
    out.push({
      type: "candlestick", x, open: pick("open"), high: pick("high"), low: pick("low"), close: pick("close"),
      increasing: { line: { color: up, width: 1.2 }, fillcolor: up },
      decreasing: { line: { color: down, width: 1.2 }, fillcolor: down },
      whiskerwidth: 0, showlegend: false,
    });
    if (!all.volume) continue;
    const tint = indices.map((index) => (all.close[index] >= all.open[index] ? up : down));
    out.push({
      type: "bar", x, y: pick("volume"), yaxis: "y2", marker: { color: tint, opacity: 0.55, line: { width: 0 } },
      showlegend: false,
    });
  }
  return out;
}

// Draw the window's bars, with bars before and after it; return where they lie on the screen.
export async function draw(place, { bars, before, after }) {
  const look = colours();
  const all = joined(before, bars, after);
  const length = bars.time.length;
  const first = -(before?.time.length ?? 0);
  const { width, height } = { width: place.clientWidth, height: place.clientHeight };
  const plot = geometry(width, height, first - 0.5, first + all.time.length - 0.5);
  const { values, texts } = ticks(all.time, first, plot.width);
  const decimals = decimalsOf([...all.close, ...all.high, ...all.low]);
  const axis = { fixedrange: true, zeroline: false, showline: false, gridcolor: look.grid, automargin: false };
  const layout = {
    width, height, bargap: 0.3, showlegend: false, dragmode: false, hovermode: false,
    margin: { l: MARGIN.left, r: MARGIN.right, t: MARGIN.top, b: MARGIN.bottom, pad: 0 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    shapes: jumps(all.time, first, look.text),
    font: { family: look.font, size: 11, color: look.text },
    xaxis: {
      ...axis, range: [plot.low, plot.high], tickmode: "array", tickvals: values, ticktext: texts, type: "linear",
      rangeslider: { visible: false }, anchor: all.volume ? "y2" : "y",
    },
    yaxis: { ...axis, side: "right", domain: all.volume ? [PRICES.low, PRICES.high] : [0, 1], tickformat: `.${decimals}f`, nticks: 8 },
    yaxis2: { ...axis, side: "right", domain: [VOLUMES.low, VOLUMES.high], nticks: 3, showgrid: false, rangemode: "tozero" },
  };
  await window.Plotly.react(place, traces(all, first, length, look), layout, { staticPlot: true, displayModeBar: false });
  return { ...plot, decimals, length };
}

// Bars and pixels of a chart of this size: bar i lies between i - 0.5 and i + 0.5.
export function geometry(width, height, low, high) {
  const inner = width - MARGIN.left - MARGIN.right;
  return {
    low, high, width: inner, top: MARGIN.top, height: height - MARGIN.top - MARGIN.bottom,
    x: (bar) => MARGIN.left + ((bar - low) / (high - low)) * inner,
    bar: (x) => Math.round(low + ((x - MARGIN.left) / inner) * (high - low)),
  };
}
