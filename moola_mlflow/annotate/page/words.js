// What the page says about the window on the screen.
import { clock } from "./chart.js";
import { spanText } from "./panel.js";

export function hint(state, times, review) {
  const event = state.events[state.selected];
  if (state.mark !== null) {
    return `First bar ${clock(times[state.mark])}. Go to the last bar and press Space, or the number of a class. Esc drops the mark.`;
  }
  if (event) {
    const edge = state.edge === "end" ? "last" : "first";
    return `${event.label}, ${spanText(event, times)}. ← → move its ${edge} bar, e takes the other edge, Space goes on to another event.`;
  }
  if (state.events.length) return "Enter saves and shows the next window. Space marks another event.";
  if (review) return "Solid: the label as it is. Dashed: the prediction. a accepts, c takes the prediction as your marks to correct, r rejects.";
  return "Drag over a pattern, or move with ← → and mark its first and last bar with Space. n: nothing here.";
}

export function readout(bars, bar, decimals) {
  const price = (name, key) => `${name} ${bars[key][bar].toFixed(decimals)}`;
  const parts = [`bar ${bar}`, bars.time[bar].replace("T", " ").slice(0, 16)];
  parts.push(price("O", "open"), price("H", "high"), price("L", "low"), price("C", "close"));
  if (bars.volume) parts.push(`V ${bars.volume[bar]}`);
  return parts;
}

export function chartText(instrument, { time, low, high }, decimals) {
  const range = `${Math.min(...low).toFixed(decimals)} to ${Math.max(...high).toFixed(decimals)}`;
  return `${instrument ?? ""}, ${time.length} bars from ${time[0].replace("T", " ")} to ${clock(time.at(-1))}, prices ${range}`;
}

export function refusal(error) {
  const { value, allowed } = error.body;
  const parts = [error.message];
  if (value !== undefined) parts.push(`It is ${typeof value === "string" ? value : JSON.stringify(value)}.`);
  if (allowed) parts.push(`Allowed: ${allowed}.`);
  return parts.join(" ");
}

export const SILENT = "The server does not answer. Your marks are kept in this tab: start annotate again, open its link, and go on.";
export const STRANGE_LINK = "This link belongs to another session. Open the link that annotate printed last.";
export const DECIDED_ELSEWHERE = "That window was decided already, perhaps in another tab. Here is the current one.";

export function finishText({ looked_at: lookedAt, kept }) {
  return `You have looked at ${lookedAt} windows and kept ${kept}. The server stops, and the labels file holds every decision. A later session with the same file goes on from here.`;
}

export function nextCommand(labels) {
  return `moola finetune --labels ${/^[\w./-]+$/.test(labels) ? labels : `'${labels.replaceAll("'", `'"'"'`)}'`}`;
}
