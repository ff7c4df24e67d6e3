// The server's answers as values. An answer that is no success is thrown as a Refused, no answer at all as a Silent.

export class Refused extends Error {
  constructor(status, body) {
    super(body.error ?? `The server answered ${status}.`);
    this.status = status;
    this.body = body;
  }
}

export class Silent extends Error {}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    throw new Silent(String(error));
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, body);
  return body;
}

function post(path, body = {}) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export const session = () => ask("/api/session");
export const currentWindow = () => ask("/api/window");
export const decide = (decision) => post("/api/decision", decision);
export const undoDecision = () => post("/api/undo");
export const progress = () => ask("/api/progress");
export const finish = () => post("/api/finish");

export function context(ticket, before, after) {
  return ask(`/api/context?${new URLSearchParams({ ticket, before, after })}`);
}
