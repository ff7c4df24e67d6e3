// What lies over the chart: marked events, suggestions, the cursor. The mouse and fingers act on it.

const DRAG = 5; // pixels from which on a press is a drag
const TAG = 215; // pixels that the longest tags are wide

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A lane for each tag, so that no tag lies on another one.
function lanesOf(lefts) {
  const ends = [];
  return lefts.map((left) => {
    const free = ends.findIndex((end) => end.every((other) => Math.abs(other - left) > TAG));
    const lane = free < 0 ? ends.length : free;
    (ends[lane] ??= []).push(left);
    return lane;
  });
}

export class Overlay {
  // act: {bar(bar, index of a pressed event or null), span(first, last), edge(index, edge, bar, goesOn), hover(bar or null)}
  constructor(place, act) {
    this.place = place;
    this.act = act;
    this.plot = null;
    this.press = null;
    place.addEventListener("pointerdown", (event) => this.pressed(event));
    place.addEventListener("pointermove", (event) => this.moved(event));
    place.addEventListener("pointerup", (event) => this.lifted(event));
    place.addEventListener("pointercancel", () => this.dropped());
    place.addEventListener("pointerleave", () => this.press || this.act.hover(null));
  }

  barAt(event) {
    return this.plot.bar(event.clientX - this.place.getBoundingClientRect().left);
  }

  pressed(event) {
    if (!this.plot || event.button !== 0) return;
    event.preventDefault();
    this.place.setPointerCapture(event.pointerId);
    const { index, edge } = event.target.dataset;
    this.press = { x: event.clientX, bar: this.barAt(event), index, edge, dragged: false };
  }

  moved(event) {
    if (!this.plot) return;
    const bar = this.barAt(event);
    this.act.hover(bar);
    if (!this.press) return;
    this.press.dragged ||= Math.abs(event.clientX - this.press.x) > DRAG;
    if (!this.press.dragged) return;
    if (this.press.edge) this.pull(this.press, bar);
    else this.band(this.press.bar, bar);
  }

  pull(press, bar) {
    if (bar === press.bar) return;
    this.act.edge(Number(press.index), press.edge, bar, press.pulled ?? false);
    Object.assign(press, { bar, pulled: true });
  }

  lifted(event) {
    const press = this.press;
    this.dropped();
    if (!press) return;
    const bar = this.barAt(event);
    if (press.edge && press.dragged) return;
    if (press.dragged) this.act.span(press.bar, bar);
    else this.act.bar(bar, press.index === undefined ? null : Number(press.index));
  }

  dropped() {
    this.press = null;
    this.place.querySelector(".band")?.remove();
  }

  band(first, last) {
    const band = this.place.querySelector(".band") ?? this.place.appendChild(element("div", "band"));
    this.lay(band, Math.max(0, Math.min(first, last)), Math.min(this.plot.length - 1, Math.max(first, last)));
  }

  lay(one, first, last) {
    const left = this.plot.x(first - 0.5);
    one.style.left = `${left}px`;
    one.style.width = `${this.plot.x(last + 0.5) - left}px`;
    return one;
  }

  span(event, className, tone, text) {
    const made = this.lay(element("div", `span ${className}`), event.start, event.end);
    made.dataset.tone = tone;
    const label = made.appendChild(element("span", "tag", text));
    const room = this.plot.x(this.plot.high) - this.plot.x(event.start - 0.5);
    if (room < 130) label.classList.add("leftward");
    return made;
  }

  // shown: {state, toneOf, ghosts: [{label, start, end, text}], given: [...]}
  show({ state, toneOf, ghosts, given }) {
    const band = this.place.querySelector(".band");
    this.place.replaceChildren();
    if (!this.plot) return;
    this.place.style.setProperty("--top", `${this.plot.top}px`);
    this.place.style.setProperty("--height", `${this.plot.height}px`);
    const parts = [];
    if (this.plot.low < -1) parts.push(this.lay(element("div", "outside"), this.plot.low + 0.5, -1));
    if (this.plot.high > state.length) parts.push(this.lay(element("div", "outside"), state.length, this.plot.high - 0.5));
    const frames = [...ghosts.map((one) => [one, "ghost"]), ...given.map((one) => [one, "given"])];
    const lanes = lanesOf(frames.map(([one]) => this.plot.x(one.start)));
    frames.forEach(([one, className], index) => {
      const frame = this.span(one, className, toneOf(one.label), one.text);
      frame.style.setProperty("--lane", lanes[index]);
      parts.push(frame);
    });
    state.events.forEach((event, index) => parts.push(this.event(event, index, state, toneOf)));
    if (state.mark !== null) {
      const [first, last] = [Math.min(state.mark, state.cursor), Math.max(state.mark, state.cursor)];
      parts.push(this.lay(element("div", "band"), first, last));
      parts.push(this.lay(element("div", "first-bar"), state.mark, state.mark));
    }
    if (state.selected < 0) parts.push(this.lay(element("div", "cursor"), state.cursor, state.cursor));
    this.place.append(...parts);
    if (band && this.press?.dragged && !this.press.edge) this.place.append(band);
  }

  event(event, index, state, toneOf) {
    const chosen = index === state.selected;
    const made = this.span(event, chosen ? "event chosen" : "event", toneOf(event.label), event.label);
    made.dataset.index = index;
    for (const edge of ["start", "end"]) {
      const handle = element("div", `handle ${edge}${chosen && edge === state.edge ? " active" : ""}`);
      Object.assign(handle.dataset, { index, edge });
      made.append(handle);
    }
    return made;
  }
}
