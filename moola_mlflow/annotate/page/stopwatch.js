// Seconds for which a window was on the screen; a hidden tab does not count.

export class Stopwatch {
  #counted = 0;
  #since = null;

  start() {
    this.#counted = 0;
    this.#since = performance.now();
  }

  pause(hidden) {
    if (hidden && this.#since !== null) {
      this.#counted += performance.now() - this.#since;
      this.#since = null;
    } else if (!hidden && this.#since === null) {
      this.#since = performance.now();
    }
  }

  seconds() {
    const running = this.#since === null ? 0 : performance.now() - this.#since;
    return Math.round(this.#counted + running) / 1000;
  }
}
