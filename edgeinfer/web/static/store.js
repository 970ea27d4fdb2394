/** What the page knows of the daemon: its status, asked for every second while somebody looks. */
import { ApiError, get } from "./api.js";
import { announce, stateWord } from "./dom.js";

const PERIOD_MS = 1000, PATIENCE_MS = 5000;

class Store extends EventTarget {
  status = null; // the newest answer of /api/v1/status
  info = null;
  trouble = null; // the ApiError while nobody answers
  #pushed = new Map(); // source → its newest status message from /live
  #timer = 0;
  #asking = false;

  start() {
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    return this.refresh();
  }

  get role() {
    return this.status?.role ?? null;
  }

  source(name) {
    return this.status?.sources[name] ?? null;
  }

  /** A status message that came with the pictures: it is sooner than the next answer. */
  push(message) {
    if (message.kind !== "status") return;
    this.#pushed.set(message.source, message);
    if (this.status) this.#take(this.status);
  }

  /** Asks now; the next turn is a second later. */
  async refresh() {
    clearTimeout(this.#timer);
    if (this.#asking) return;
    this.#asking = true;
    try {
      const status = await get("api/v1/status", AbortSignal.timeout?.(PATIENCE_MS));
      if (status.session !== this.status?.session || !this.info) this.info = await get("api/v1/info").catch(() => null);
      this.trouble = null;
      this.#take(status);
    } catch (error) {
      this.trouble = error instanceof ApiError ? error : new ApiError(0, "unreachable", "edgeinfer does not answer in time");
      this.dispatchEvent(new Event("change"));
    } finally {
      this.#asking = false;
      clearTimeout(this.#timer);
      if (!document.hidden && this.trouble?.status !== 401) this.#timer = setTimeout(() => this.refresh(), PERIOD_MS);
    }
  }

  #take(status) {
    const before = this.status;
    for (const [name, message] of this.#pushed) {
      if (message.session === status.session && message.t_publish_ns > status.t_ns && status.sources[name]) {
        const { state, reason } = message;
        status.sources[name] = { ...status.sources[name], state, reason };
      }
    }
    const told = this.#told;
    this.#told = Object.fromEntries(Object.entries(status.sources).map(([name, { state, reason }]) => [name, said(name, state, reason)]));
    this.status = status;
    if (before) this.#announce(told);
    this.dispatchEvent(new Event("change"));
  }

  #told = {};

  #announce(told) {
    const news = Object.entries(this.#told).filter(([name, [state]]) => told[name]?.[0] !== state);
    if (news.length) announce(news.map(([, [, text]]) => text).join(". "));
  }
}

const said = (name, state, reason) => [state, `${name}: ${stateWord(state)}${reason ? `, ${reason.text}` : ""}`];

export const store = new Store();
