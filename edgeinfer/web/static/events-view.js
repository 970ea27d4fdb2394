/** What happened, newest first: states, drops by reason, engine steps, reloads, crashes. */
import { address, get, sentence } from "./api.js";
import { clock, el, head, say } from "./dom.js";
import { store } from "./store.js";

const KINDS = ["state", "drops", "engine", "reload", "crash", "clock", "sink", "heat"];
const MOST = 1000, POLL_MS = 2000;

class EventsView extends HTMLElement {
  #events = new Map(); // id → event
  #rows = el("tbody");
  #none = el("p.quiet", "Nothing has happened yet.");
  #trouble = el("p.notice", { role: "status", hidden: true });
  #crash = el("section.crash", { "data-crash": true, hidden: true });
  #kinds = new Set();
  #source = el("select", { "aria-label": "Camera", "data-filter": "source", onchange: () => this.#show() }, el("option", { value: "" }, "All sources"));
  #text = el("input", { type: "search", placeholder: "Text", "aria-label": "Text", "data-filter": "text", oninput: () => this.#show() });
  #last = 0;
  #stream = null;

  connectedCallback() {
    const chips = KINDS.map((kind) => el("button.chip", { "aria-pressed": "false", "data-filter": kind, onclick: ({ currentTarget }) => this.#toggle(kind, currentTarget) }, kind));
    this.append(
      el("h1", "Events"), this.#crash, this.#trouble,
      el("div.filters", { role: "group", "aria-label": "Filter" }, el("span.chips", chips), this.#source, this.#text),
      el("table.events", head("Time", "Kind", "Source", "What"), this.#rows), this.#none,
    );
    store.addEventListener("change", this.#told);
    this.#told();
  }

  disconnectedCallback() {
    store.removeEventListener("change", this.#told);
    this.#stream?.close();
    clearTimeout(this.timer);
  }

  #told = () => {
    const { session, last_crash: crash } = store.status ?? {};
    if (session !== this.session) this.#listen(); // a new daemon counts from 1 again
    this.session = session;
    this.#crash.hidden = !crash;
    if (!crash || this.#crash.dataset.crash === String(crash.t_ns)) return;
    this.#crash.dataset.crash = crash.t_ns;
    const where = [crash.stage && `stage ${crash.stage}`, crash.version && `edgeinfer ${crash.version}`].filter(Boolean).join(", ");
    this.#crash.replaceChildren(el("h2", `The last crash, ${clock(crash.t_ns)}`), el("p", `${crash.code}: ${crash.text}${where ? ` (${where})` : ""}`));
  };

  #listen() {
    this.#stream?.close();
    this.#events.clear();
    this.#last = 0;
    const stream = (this.#stream = new EventSource(address("api/v1/events/stream")));
    for (const kind of KINDS) stream.addEventListener(kind, ({ data }) => this.#take([JSON.parse(data)]));
    stream.onopen = () => (this.#trouble.hidden = true);
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) this.#poll(); // refused: too many, or something between that can't
    };
  }

  async #poll() {
    clearTimeout(this.timer);
    try {
      this.#take((await get(`api/v1/events?since=${this.#last}`)).events);
      this.#trouble.hidden = true;
    } catch (error) {
      this.#trouble.hidden = false;
      say(this.#trouble, sentence(error));
    }
    if (this.isConnected) this.timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  #take(events) {
    for (const event of events) {
      this.#events.set(event.id, event);
      this.#last = Math.max(this.#last, event.id);
    }
    const ids = [...this.#events.keys()].sort((one, other) => one - other);
    for (const id of ids.slice(0, Math.max(0, ids.length - MOST))) this.#events.delete(id);
    cancelAnimationFrame(this.turn);
    this.turn = requestAnimationFrame(() => this.#show());
  }

  #toggle(kind, button) {
    if (!this.#kinds.delete(kind)) this.#kinds.add(kind);
    button.setAttribute("aria-pressed", this.#kinds.has(kind));
    this.#show();
  }

  #show() {
    const all = [...this.#events.values()].sort((one, other) => other.id - one.id);
    const sources = new Set([...this.#source.options].map(({ value }) => value));
    for (const { source } of all) if (source && !sources.has(source)) sources.add(source) && this.#source.append(el("option", { value: source }, named(source)));
    const text = this.#text.value.trim().toLowerCase();
    const passes = ({ kind, source, code, text: said }) =>
      (!this.#kinds.size || this.#kinds.has(kind)) && (!this.#source.value || source === this.#source.value) && (!text || `${source} ${code} ${said}`.toLowerCase().includes(text));
    const shown = all.filter(passes);
    this.#rows.replaceChildren(...shown.map(row));
    this.#none.hidden = shown.length > 0;
    say(this.#none, all.length ? "No event passes the filter." : "Nothing has happened yet.");
  }
}

const named = (source) => (source === "_daemon" || !source ? "edgeinfer" : source);
const row = ({ id, t_ns, kind, source, code, text, level }) =>
  el("tr", { "data-event": id, "data-kind": kind, "data-level": level },
    el("td", el("time", { datetime: new Date(t_ns / 1e6).toISOString() }, clock(t_ns))), el("td", el("span.kind", kind)), el("td", named(source)), el("td", code ? el("code", code) : null, " ", text));

customElements.define("events-view", EventsView);
