// What is marked in the window on the screen. A state is a value: each function returns a new one, or throws a Notice.

export class Notice extends Error {}

const REMEMBERED = 200;

export function opened(length, label, decided) {
  return {
    length,
    events: (decided?.events ?? []).map(({ label, start, end }) => ({ label, start, end })),
    grade: decided?.grade ?? null,
    notes: decided?.notes ?? "",
    label, // of the next event
    selected: -1,
    edge: "end",
    cursor: Math.floor(length / 2),
    mark: null, // the first of two bars, until the second is marked
    past: [],
  };
}

function edited(state, change) {
  const { past, ...now } = state;
  return { ...state, ...change, past: [...past, now].slice(-REMEMBERED) };
}

export function undone(state) {
  if (!state.past.length) return null;
  return { ...state.past.at(-1), notes: state.notes, past: state.past.slice(0, -1) };
}

function within(state, bar) {
  return Math.min(state.length - 1, Math.max(0, bar));
}

export function cursorAt(state, bar) {
  return { ...state, cursor: within(state, bar) };
}

export function select(state, index) {
  return { ...state, selected: index, edge: "end", mark: null };
}

export function selectNext(state, step) {
  const count = state.events.length;
  if (!count) throw new Notice("No event is marked in this window.");
  const from = state.selected < 0 ? (step > 0 ? -1 : count) : state.selected;
  return select(state, (from + step + count) % count);
}

export function released(state) {
  const event = state.events[state.selected];
  const cursor = event ? within(state, event.end + 1) : state.cursor;
  return { ...state, selected: -1, mark: null, cursor };
}

export function markAt(state, bar, label = state.label) {
  if (state.mark === null) return edited({ ...state, cursor: bar }, { mark: bar, selected: -1 });
  return withEvent(state, state.mark, bar, label);
}

export function withEvent(state, first, last, label = state.label) {
  const event = { label, start: within(state, Math.min(first, last)), end: within(state, Math.max(first, last)) };
  if (event.start === event.end) throw new Notice("An event has at least two bars.");
  if (state.events.some((other) => event.start <= other.end && other.start <= event.end)) {
    throw new Notice("Two events of one window cannot share a bar.");
  }
  const events = [...state.events, event].sort((a, b) => a.start - b.start);
  return edited(state, { events, label, mark: null, cursor: event.end, selected: events.indexOf(event), edge: "end" });
}

// Events that share no bar: of those that do, the one with the highest score.
export function disjoint(events) {
  const kept = [];
  for (const event of [...events].sort((a, b) => (b.score ?? 1) - (a.score ?? 1))) {
    if (kept.every((other) => event.end < other.start || other.end < event.start)) kept.push(event);
  }
  return kept.sort((a, b) => a.start - b.start);
}

export function withEvents(state, events) {
  const taken = disjoint(events).map(({ label, start, end }) => ({ label, start, end }));
  return edited(state, { events: taken, mark: null, selected: taken.length - 1, edge: "end" });
}

// A drag is one step to undo: its later moves go on with the first one.
export function edgeTo(state, index, edge, bar, goesOn = false) {
  const event = state.events[index];
  const low = edge === "start" ? (state.events[index - 1]?.end ?? -1) + 1 : event.start + 1;
  const high = edge === "end" ? (state.events[index + 1]?.start ?? state.length) - 1 : event.end - 1;
  const moved = { ...event, [edge]: Math.min(high, Math.max(low, bar)) };
  if (moved[edge] === event[edge]) return { ...state, selected: index, edge };
  const change = { events: state.events.with(index, moved), selected: index, edge };
  return goesOn ? { ...state, ...change } : edited(state, change);
}

export function otherEdge(state) {
  if (state.selected < 0) throw new Notice("Select an event first: press the up or down arrow.");
  return { ...state, edge: state.edge === "end" ? "start" : "end" };
}

export function classified(state, label) {
  if (state.mark !== null && state.mark !== state.cursor) return markAt(state, state.cursor, label);
  if (state.selected < 0) return { ...state, label };
  const events = state.events.with(state.selected, { ...state.events[state.selected], label });
  return edited(state, { events, label });
}

export function removed(state, index = state.selected) {
  if (index < 0) throw new Notice("Select an event first: press the up or down arrow.");
  return edited(state, { events: state.events.toSpliced(index, 1), selected: -1 });
}

export function graded(state, grade) {
  return edited(state, { grade: state.grade === grade ? null : grade });
}
