// Bars before and after the window, asked for one step at a time: the server records that they were shown.
import * as api from "./api.js";

const STEP = 30;

export function buildContext() {
  let held = { before: null, after: null };
  let asking = Promise.resolve(); // one question after the other: each asks for more than the last answer
  const count = (side) => held[side]?.time.length ?? 0;
  return {
    bars: () => held,
    wasShown: () => count("before") + count("after") > 0,
    clear: () => {
      held = { before: null, after: null };
    },
    // Ask for a step more on one side; false if there is no more.
    more: (side, window, most) => {
      asking = asking.catch(() => null).then(() => ask(side, window, most));
      return asking;
    },
  };

  async function ask(side, window, most) {
    const had = held;
    const wanted = { before: count("before"), after: count("after") };
    const before = wanted[side];
    wanted[side] = Math.min(most, before + STEP);
    if (wanted[side] === before) return false;
    const answer = await api.context(window.ticket, wanted.before, wanted.after);
    if (held !== had) return false; // another window has come meanwhile
    held = answer;
    return count(side) > before;
  }
}
