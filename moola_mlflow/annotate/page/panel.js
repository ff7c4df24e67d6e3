// The column beside the chart: classes, events, grade, note.
import { clock } from "./chart.js";

const GRADES = ["A", "B", "C", "D"];
const $ = (id) => document.getElementById(id);

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.append(text);
  made.addEventListener("click", act);
  return made;
}

function piece(kind, text, className) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// act: {classify(index), select(index), remove(index), grade(letter), notes(text)}
export function buildPanel(classes, act) {
  const choices = classes.map((name, index) => {
    const made = button("", null, () => act.classify(index));
    made.dataset.tone = index;
    if (index < 9) {
      made.append(piece("kbd", String(index + 1)));
      made.setAttribute("aria-keyshortcuts", String(index + 1));
    }
    made.append(piece("span", "", "swatch"), piece("span", name, "name"));
    return made;
  });
  $("classes").replaceChildren(...choices);
  $("grades").replaceChildren(...GRADES.map((letter) => {
    const made = button(letter, `Grade ${letter}`, () => act.grade(letter));
    made.setAttribute("aria-keyshortcuts", `Shift+${letter}`);
    return made;
  }));
  $("notes").addEventListener("input", () => act.notes($("notes").value));
}

function clocks(event, times) {
  return `${clock(times[event.start])}–${clock(times[event.end])}`;
}

export function spanText(event, times) {
  return `${clock(times[event.start])} to ${clock(times[event.end])}, ${event.end - event.start + 1} bars`;
}

export function showPanel(state, classes, times, act) {
  [...$("classes").children].forEach((one, index) => {
    one.setAttribute("aria-pressed", String(classes[index] === state.label));
  });
  [...$("grades").children].forEach((one, index) => {
    one.setAttribute("aria-pressed", String(GRADES[index] === state.grade));
  });
  if ($("notes").value !== state.notes) $("notes").value = state.notes;
  $("no-events").hidden = state.events.length > 0;
  $("events").replaceChildren(...state.events.map((event, index) => {
    const row = document.createElement("li");
    const choose = button(piece("span", "", "swatch"), null, () => act.select(index));
    choose.className = "choose";
    choose.dataset.tone = classes.indexOf(event.label);
    choose.setAttribute("aria-pressed", String(index === state.selected));
    choose.append(piece("span", event.label, "name"), piece("span", clocks(event, times), "when"));
    const remove = button("×", `Remove ${event.label}, ${spanText(event, times)}`, () => act.remove(index));
    remove.className = "remove";
    row.append(choose, remove);
    return row;
  }));
}
