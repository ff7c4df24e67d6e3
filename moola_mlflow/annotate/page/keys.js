// The keys, in one table: it moves the page and it fills the help.

export const KEYS = [
  ["Mark", "left right", "← →", "move the cursor, or the chosen edge of the selected event; with Shift by five bars"],
  ["Mark", "home end", "Home End", "go to the first or last bar"],
  ["Mark", "mark", "Space", "mark the first bar, then the last bar; with an event selected: go on to another event"],
  ["Mark", "class", "1 to 9", "class of the selected event or of the next one; after the first bar it also marks the last"],
  ["Mark", "previous next", "↑ ↓", "select the event before or after"],
  ["Mark", "edge", "e", "the other edge of the selected event"],
  ["Mark", "remove", "Delete", "remove the selected event"],
  ["Mark", "release", "Esc", "drop the mark, or the selection"],
  ["Decide", "go", "Enter", "mark, as Space does; with events and no open mark: save and show the next window"],
  ["Decide", "nothing", "n", "nothing here, next window"],
  ["Decide", "skip", "s", "skip: record no label"],
  ["Decide", "undo", "u", "undo the last mark; without one, go back to the last decision"],
  ["Decide", "grade", "Shift A to D", "grade the window; again: no grade"],
  ["Decide", "note", "t", "write a note; Esc or Enter returns to the chart"],
  ["Show", "suggestion", "h", "show or hide the suggestion"],
  ["Show", "take", "a", "take the suggestion as your events, then change or save them"],
  ["Show", "before after", ", .", "show bars before or after the window; this is recorded"],
  ["Show", "theme", "d", "light or dark"],
  ["Show", "help", "?", "these keys"],
  ["Show", "finish", "q", "finish the session"],
];

export const REVIEW_KEYS = [
  ["Review", "accept", "a", "accept what is under review"],
  ["Review", "correct", "c", "take the prediction, or else the label, as your events; then change and save them"],
  ["Review", "reject", "r", "reject what is under review"],
];

const NAMED = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "previous", ArrowDown: "next", Home: "home", End: "end",
  " ": "mark", Enter: "go", Escape: "release", Delete: "remove", Backspace: "remove",
  e: "edge", n: "nothing", s: "skip", u: "undo", t: "note", h: "suggestion", a: "take", ",": "before", ".": "after",
  d: "theme", "?": "help", q: "finish",
};

const IN_REVIEW = { a: "accept", c: "correct", r: "reject" };

export function actionOf(event, review) {
  const { key } = event;
  if (event.ctrlKey || event.metaKey) return key === "z" ? ["undo"] : null;
  if (event.altKey) return null;
  if (event.shiftKey && /^[A-D]$/i.test(key)) return ["grade", key.toUpperCase()];
  if (/^[1-9]$/.test(key)) return ["class", Number(key) - 1];
  const name = (review && IN_REVIEW[key]) || NAMED[key];
  if (!name) return null;
  return name === "left" || name === "right" ? ["move", (name === "left" ? -1 : 1) * (event.shiftKey ? 5 : 1)] : [name];
}

// A key that belongs to a field or a button is left to it. While a dialog is open all keys are the dialog's, wherever the
// focus is: a key typed then must not decide the window behind it.
export function isFree(event) {
  const { target } = event;
  if (document.querySelector("dialog[open]") || target.closest("textarea, input")) return false;
  return !(target.closest("button, summary") && (event.key === " " || event.key === "Enter"));
}

export function fillHelp(place, review) {
  const rows = review ? [...KEYS.filter((row) => row[1] !== "take"), ...REVIEW_KEYS] : KEYS;
  place.replaceChildren();
  for (const group of new Set(rows.map((row) => row[0]))) {
    const table = document.createElement("table");
    table.createCaption().textContent = group;
    for (const [, , shown, text] of rows.filter((row) => row[0] === group)) {
      const row = table.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      for (const part of shown.split(" ")) {
        const word = document.createElement(part === "to" ? "span" : "kbd");
        word.textContent = part;
        head.append(word, " ");
      }
      row.append(head);
      row.insertCell().textContent = text;
    }
    place.append(table);
  }
}
