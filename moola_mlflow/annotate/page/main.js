// The page of annotate: shows the current window, turns keys and presses into marks, and sends decisions.
import * as api from "./api.js";
import * as drafts from "./drafts.js";
import * as marks from "./session.js";
import * as words from "./words.js";
import { draw } from "./chart.js";
import { buildContext } from "./context.js";
import { actionOf, fillHelp, isFree } from "./keys.js";
import { Overlay } from "./overlay.js";
import { buildPanel, showPanel } from "./panel.js";
import { showProgress } from "./progress.js";
import { accepted, shownOf, toCorrect, wordsOf } from "./review.js";
import { Stopwatch } from "./stopwatch.js";
import { onTheme, theme, toggleTheme } from "./theme.js";

const $ = (id) => document.getElementById(id);
const NEXT_CHART = "moola:next-chart"; // a measure of the browser: from a decision to the next chart on the screen
const watch = new Stopwatch();
const context = buildContext();
let session = null;
let shown = null; // the window on the screen, as the server sent it
let state = null;
let plot = null;
let label = null; // the class that was used last
let ghostsOn = true;
let busy = false; // a decision is on its way: what is typed before its next chart is seen means nothing

// -- what is on the screen

function toneOf(name) {
  return session.classes.indexOf(name);
}

function ghosts() {
  if (shown.review) return shownOf(shown.review).predicted;
  if (!ghostsOn || !shown.suggestion) return [];
  return shown.suggestion.map((event) => ({ ...event, text: `${event.label} ${event.score?.toFixed(2) ?? ""}` }));
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function trouble(text) {
  $("trouble").hidden = !text;
  $("trouble").textContent = text;
}

function showReadout(bar) {
  const inside = bar !== null && bar >= 0 && bar < state.length ? bar : state.cursor;
  const parts = words.readout(shown.bars, inside, plot.decimals);
  $("readout").replaceChildren(...parts.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
}

function refresh() {
  overlay.show({ state, toneOf, ghosts: ghosts(), given: shown.review ? shownOf(shown.review).given : [] });
  showPanel(state, session.classes, shown.bars.time, panelActs);
  $("save").disabled = !state.events.length || state.mark !== null;
  $("accept").classList.toggle("main", !state.events.length);
  $("suggestion").setAttribute("aria-pressed", String(ghostsOn));
  showReadout(null);
  say(words.hint(state, shown.bars.time, shown.review));
}

async function drawChart() {
  plot = await draw($("chart"), { bars: shown.bars, ...context.bars() });
  overlay.plot = plot;
  $("chart").setAttribute("aria-label", words.chartText(shown.instrument, shown.bars, plot.decimals));
}

function kindOf({ review, decided, blind }) {
  if (review) return wordsOf(review).kind;
  if (decided) return "decided before";
  return blind ? "blind" : "";
}

function showHead() {
  $("instrument").textContent = shown.instrument ?? session.instrument ?? "";
  $("number").textContent = `window ${shown.number}`;
  $("kind").hidden = !kindOf(shown);
  $("kind").textContent = kindOf(shown);
  $("kind").title = shown.blind ? "Shown without a suggestion, so that scores stay unbiased" : "";
  $("review").hidden = !shown.review;
  if (shown.review) {
    $("review-text").textContent = shown.review.text;
    $("accept").lastElementChild.textContent = wordsOf(shown.review).accept;
    $("reject").lastElementChild.textContent = wordsOf(shown.review).reject ?? "";
    $("reject").hidden = !wordsOf(shown.review).reject;
  }
  for (const id of ["suggestion", "take"]) $(id).hidden = !shown.suggestion || Boolean(shown.review);
}

async function open(next) {
  shown = next;
  trouble("");
  showProgress(next.progress, session.classes);
  $("done").hidden = !next.done;
  for (const id of ["chart", "overlay", "readout", "zone"]) $(id).hidden = Boolean(next.done);
  if (next.done) {
    say("No window is left. u changes the last decision, q finishes.");
    return;
  }
  label ??= session.classes[0];
  state = drafts.restored(next.ticket, marks.opened(next.bars.time.length, label, next.decided));
  context.clear();
  showHead();
  await drawChart();
  refresh();
  watch.start();
}

function change(next) {
  state = next;
  label = state.label;
  drafts.keep(shown.ticket, state);
  refresh();
}

// -- what is sent

function explain(error) {
  if (error instanceof marks.Notice) say(error.message, true);
  else if (error instanceof api.Silent) trouble(words.SILENT);
  else if (error instanceof api.Refused && (error.status === 401 || error.status === 403)) trouble(words.STRANGE_LINK);
  else if (error instanceof api.Refused) say(words.refusal(error), true);
  else throw error;
}

function hold(now) {
  busy = now;
  $("work").setAttribute("aria-busy", String(now));
}

async function alone(act) {
  if (busy) return;
  hold(true);
  try {
    await act();
  } catch (error) {
    explain(error);
  } finally {
    hold(false);
  }
}

function measure(start) {
  requestAnimationFrame(() => setTimeout(() => performance.measure(NEXT_CHART, { start, end: performance.now() })));
}

function send(action, events) {
  const decision = {
    ticket: shown.ticket, action, grade: state.grade, notes: state.notes, seconds: watch.seconds(),
    events: events.map((event) => ({ label: event.label, start: event.start, end: event.end })),
    context_shown: context.wasShown(),
  };
  return alone(async () => {
    const start = performance.now();
    try {
      const next = await api.decide(decision);
      drafts.forget();
      await open(next);
    } catch (error) {
      if (!(error instanceof api.Refused && error.status === 409)) throw error;
      await open(error.body.window);
      say(words.DECIDED_ELSEWHERE, true);
      return;
    }
    measure(start);
  });
}

function save() {
  if (!state.events.length) throw new marks.Notice("Nothing is marked. Press n if there is nothing here.");
  return send("label", state.events);
}

function undo() {
  const before = shown.done ? null : marks.undone(state);
  if (before) return change(before);
  return alone(async () => {
    await open(await api.undoDecision());
    say("This is your last decision. Change it and save it again.");
  });
}

// Another tab may have decided the window that this one shows. Nothing waits for the answer.
async function catchUp() {
  if (!session || !shown || busy || document.hidden) return;
  const { ticket } = shown;
  try {
    const now = await api.currentWindow();
    trouble("");
    if (shown.ticket === ticket && now.ticket !== ticket) await alone(() => open(now));
  } catch (error) {
    explain(error);
  }
}

async function showContext(side) {
  const { ticket } = shown;
  const more = await context.more(side, shown, session.max_context);
  if (shown.ticket !== ticket) return;
  if (!more) throw new marks.Notice(`No more bars ${side} this window can be shown.`);
  await drawChart();
  refresh();
}

function finish() {
  const dialog = $("finish");
  $("finish-text").textContent = words.finishText(shown.progress);
  dialog.returnValue = "";
  dialog.showModal();
  dialog.addEventListener("close", () => dialog.returnValue === "yes" && alone(end), { once: true });
}

async function end() {
  const { labels, looked_at: lookedAt, kept } = await api.finish();
  session = null;
  $("ended-text").textContent = `${lookedAt} windows looked at, ${kept} kept. They are in ${labels}.`;
  $("ended-command").textContent = words.nextCommand(labels);
  $("ended").addEventListener("cancel", (event) => event.preventDefault());
  $("ended").showModal();
}

// -- what keys, buttons and presses do

function move(by) {
  const event = state.events[state.selected];
  if (event) return change(marks.edgeTo(state, state.selected, state.edge, event[state.edge] + by));
  state = marks.cursorAt(state, state.cursor + by);
  refresh();
  $("spoken").textContent = words.readout(shown.bars, state.cursor, plot.decimals).join(", ");
}

function mark() {
  change(state.selected >= 0 ? marks.released(state) : marks.markAt(state, state.cursor));
}

function suggested() {
  if (shown.suggestion) return shown.suggestion;
  throw new marks.Notice(shown.blind ? "This window is blind: it has no suggestion." : "This window has no suggestion.");
}

function review(action) {
  if (!shown.review) return null;
  if (action === "correct") return change(marks.withEvents(state, toCorrect(shown.review)));
  if (action === "reject" && !wordsOf(shown.review).reject) throw new marks.Notice("There is no label and no prediction to reject.");
  return send(action, action === "accept" ? accepted(shown.review) : []);
}

const actions = {
  move,
  home: () => move(-state.length),
  end: () => move(state.length),
  mark,
  go: () => (state.mark === null && state.events.length ? save() : mark()),
  save,
  class: (index) => session.classes[index] && change(marks.classified(state, session.classes[index])),
  previous: () => change(marks.selectNext(state, -1)),
  next: () => change(marks.selectNext(state, 1)),
  edge: () => change(marks.otherEdge(state)),
  remove: () => change(marks.removed(state)),
  release: () => change(marks.released(state)),
  nothing: () => send("label", []),
  skip: () => send("skip", []),
  undo,
  grade: (letter) => change(marks.graded(state, letter)),
  note: () => $("notes").focus(),
  suggestion: () => {
    suggested();
    ghostsOn = !ghostsOn;
    refresh();
  },
  take: () => change(marks.withEvents(state, suggested())),
  before: () => showContext("before"),
  after: () => showContext("after"),
  accept: () => review("accept"),
  correct: () => review("correct"),
  reject: () => review("reject"),
  select: (index) => change(marks.select(state, index === state.selected ? -1 : index)),
  discard: (index) => change(marks.removed(state, index)),
  span: (first, last) => change(marks.withEvent(state, first, last)),
  drag: (...given) => change(marks.edgeTo(state, ...given)),
  bar: (bar, index) => {
    if (index !== null && state.mark === null) change(marks.select(state, index));
    else if (bar >= 0 && bar < state.length) change(marks.markAt(state, bar));
  },
  theme: toggleTheme,
  help: () => $("help").showModal(),
  finish,
};
const ALWAYS = new Set(["undo", "theme", "help", "finish"]); // also when no window is left

async function run(name, ...given) {
  if (!session || !shown || busy || (shown.done && !ALWAYS.has(name))) return;
  try {
    await actions[name](...given);
  } catch (error) {
    explain(error);
  }
}

const panelActs = {
  classify: (index) => run("class", index),
  select: (index) => run("select", index),
  remove: (index) => run("discard", index),
  grade: (letter) => run("grade", letter),
  notes: (text) => {
    state = { ...state, notes: text };
    drafts.keep(shown.ticket, state);
  },
};

const overlay = new Overlay($("overlay"), {
  hover: showReadout,
  span: (first, last) => run("span", first, last),
  edge: (...given) => run("drag", ...given),
  bar: (bar, index) => run("bar", bar, index),
});

const BUTTONS = {
  save: "save", nothing: "nothing", skip: "skip", undo: "undo", accept: "accept", correct: "correct", reject: "reject",
  suggestion: "suggestion", take: "take", before: "before", after: "after", theme: "theme", "open-help": "help",
  "open-finish": "finish",
};

function listen() {
  document.addEventListener("keydown", (event) => {
    const found = isFree(event) && actionOf(event, Boolean(shown?.review));
    if (!found) return;
    event.preventDefault();
    run(...found);
  });
  $("notes").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" && (event.key !== "Enter" || event.shiftKey)) return;
    event.preventDefault();
    $("notes").blur();
  });
  for (const [id, name] of Object.entries(BUTTONS)) {
    $(id).addEventListener("click", (event) => {
      if (event.detail) $(id).blur(); // of a mouse: keys go on to the chart
      run(name);
    });
  }
  document.addEventListener("visibilitychange", () => {
    watch.pause(document.hidden);
    catchUp();
  });
  addEventListener("focus", catchUp);
  addEventListener("pageshow", (event) => event.persisted && catchUp());
  new ResizeObserver(async () => {
    if (!plot || busy || shown.done) return;
    await drawChart();
    refresh();
  }).observe($("chart"));
  onTheme(() => {
    nameTheme();
    if (plot && !shown.done) drawChart();
  });
}

function nameTheme() {
  $("theme").textContent = theme() === "dark" ? "Light" : "Dark";
}

function start() {
  nameTheme();
  listen();
  return alone(async () => {
    session = await api.session();
    document.title = `annotate ${session.instrument ?? ""}`;
    $("bars").textContent = session.bars;
    $("annotator").textContent = session.annotator;
    $("zone").textContent = session.zone;
    buildPanel(session.classes, panelActs);
    fillHelp($("keys"), session.review);
    await open(await api.currentWindow());
  });
}

start();
