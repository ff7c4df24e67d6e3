// Marks that were not sent: they survive a reload of the tab, and a server that has gone.
const KEY = "moola-draft";

export function keep(ticket, { events, grade, notes }) {
  sessionStorage.setItem(KEY, JSON.stringify({ ticket, events, grade, notes }));
}

export function forget() {
  sessionStorage.removeItem(KEY);
}

export function restored(ticket, state) {
  const draft = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  if (draft?.ticket !== ticket) return state;
  return { ...state, events: draft.events, grade: draft.grade, notes: draft.notes };
}
