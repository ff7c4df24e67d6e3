// Review: what is under review, in words, and what the label becomes when it is accepted or corrected.
import { disjoint } from "./session.js";

const WORDS = {
  label: { kind: "label in doubt", accept: "Keep the label", reject: "Take the prediction" },
  miss: { kind: "missed event", accept: "Keep the label", reject: "Reject: nothing here" },
  "false hit": { kind: "false hit", accept: "Take the prediction", reject: "Keep as it was" },
  hit: { kind: "hit", accept: "Take the prediction", reject: "Reject: nothing here" },
};

export function wordsOf({ kind, given, predicted }) {
  if (kind !== "label") return WORDS[kind];
  const accept = given.length ? "Keep the label" : "Keep: nothing here";
  // Without a label and without a prediction there is nothing to reject.
  return { ...WORDS.label, accept, reject: predicted.length ? "Take the prediction" : given.length ? "Reject: nothing here" : null };
}

// A prediction takes the place of the labels that it shares bars with.
function withPredicted({ given, predicted }) {
  const taken = disjoint(predicted);
  return disjoint([...taken.map((event) => ({ ...event, score: 2 })), ...given]);
}

// The events that the page sends with "accept". For "reject" the server knows them.
export function accepted(review) {
  return review.kind === "hit" || review.kind === "false hit" ? withPredicted(review) : review.given;
}

// The events that a correction starts from.
export function toCorrect(review) {
  return review.predicted.length ? withPredicted(review) : review.given;
}

export function shownOf(review) {
  const score = (event) => (typeof event.score === "number" ? ` ${event.score.toFixed(2)}` : "");
  return {
    given: review.given.map((event) => ({ ...event, text: `given: ${event.label}` })),
    predicted: review.predicted.map((event) => ({ ...event, text: `predicted: ${event.label}${score(event)}` })),
  };
}
