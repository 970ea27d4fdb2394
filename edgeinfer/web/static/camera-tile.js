/** A camera: its newest picture with its boxes, and, as soon as that is not live, its state in words over it. */
import { el, mark, number, say, stateWord } from "./dom.js";
import { paint } from "./draw.js";
import { live } from "./live.js";
import { store } from "./store.js";

const OLD_MS = 3000, LOOK_MS = 250;
const DIM = { starting: "quiet", ended: "quiet", failed: "error" };

export class CameraTile extends HTMLElement {
  last = null; // the header of the picture that is shown
  wanted = () => true; // which detections are drawn
  canvas = el("canvas", { width: 640, height: 360, role: "img" });
  #stop = null;
  #drawnAt = 0;
  #drawnOn = 0; // by the clock that goes on in sleep
  #drawn = 0;
  #zoom = 1;
  #title = el("strong", { "data-veil-title": true });
  #text = el("span", { "data-veil-text": true });
  #age = el("small", { "data-veil-age": true });
  #veil = el("div.veil", { "data-veil": true }, this.#title, this.#text, this.#age);
  #fps = el("span.fps");
  #found = el("span.found");
  #sizes = new ResizeObserver(() => this.#measure());

  constructor(source) {
    super();
    this.source = source;
  }

  get link() {
    return this.querySelector("a");
  }

  connectedCallback() {
    const name = this.source;
    this.dataset.source = name;
    this.dataset.drawn ??= "0";
    this.canvas.setAttribute("aria-label", `Picture of ${name}`);
    if (!this.firstChild) {
      const link = el("a", { href: `#/camera/${encodeURIComponent(name)}` }, name);
      this.append(el("div.picture", this.canvas, this.#veil), el("div.plate", el("i.dot"), link, this.#found, this.#fps));
    }
    this.#stop = new AbortController();
    const until = this.#stop; // it has the `signal` that is asked for
    live.addEventListener("frame", this.#onFrame, until);
    store.addEventListener("change", this.#look, until);
    live.addEventListener("connection", this.#look, until);
    document.addEventListener("visibilitychange", this.#look, until);
    this.#sizes.observe(this.canvas);
    this.timer = setInterval(this.#look, LOOK_MS);
    this.#look();
  }

  disconnectedCallback() {
    this.#stop.abort();
    this.#sizes.disconnect();
    clearInterval(this.timer);
  }

  get pixels() {
    return this.canvas.clientWidth * Math.min(devicePixelRatio, 2);
  }

  #onFrame = ({ detail: { header, bitmap } }) => {
    const { last } = this;
    if (header.source !== this.source) return;
    if (last?.session === header.session && header.frame_id < last.frame_id) return; // it was quicker to read than the one before
    this.last = header;
    this.#drawnAt = performance.now();
    this.#drawnOn = Date.now();
    const shape = bitmap.width !== this.canvas.width || bitmap.height !== this.canvas.height;
    const found = paint(this.canvas, bitmap, header, this.#zoom, this.wanted);
    if (shape) this.#reshape();
    this.dataset.frame = header.frame_id;
    this.dataset.drawn = ++this.#drawn;
    say(this.#found, counted(found));
    if (this.dataset.fresh !== "true") this.#look();
    this.dispatchEvent(new CustomEvent("drawn", { detail: header, bubbles: true }));
  };

  #reshape() {
    this.style.setProperty("--shape", this.canvas.width / this.canvas.height);
    this.#measure();
  }

  #measure() {
    const { width, height, clientWidth, clientHeight } = this.canvas;
    if (clientWidth && clientHeight) this.#zoom = Math.max(width / clientWidth, height / clientHeight);
  }

  #look = () => {
    const status = store.source(this.source), state = status?.state ?? "starting";
    const veil = this.#veiled(status, state);
    this.dataset.state = state;
    this.dataset.fresh = String(!veil);
    mark(this, "data-tone", veil ? veil.tone : null);
    this.#veil.hidden = !veil;
    if (veil) this.#cover(veil);
    say(this.#fps, state === "running" && status ? `${number(status.fps, status.fps < 10 ? 1 : 0)} fps` : stateWord(state));
    mark(this.link, "aria-label", `${this.source}: ${veil ? `${veil.title}. ${veil.text}` : `running, ${this.#fps.textContent}, ${this.#found.textContent || "nothing found"}`}`);
  };

  /** How old its picture is, null before the first. */
  #passed() {
    return this.#drawnAt ? Math.max(performance.now() - this.#drawnAt, Date.now() - this.#drawnOn) : null;
  }

  /** What stands over the picture, null where it is live. */
  #veiled(status, state) {
    const age = this.#passed();
    if (store.trouble && !(age !== null && age < OLD_MS)) return { title: "Not connected", text: store.trouble.message, tone: "error" };
    if (state !== "running") return { title: stateWord(state), text: status?.reason?.text ?? "", tone: DIM[state] ?? "warning" };
    if (live.text) return { title: "Not connected", text: live.text, tone: "error" };
    if (age === null) return { title: "Waiting", text: "for the first picture", tone: "quiet" };
    if (age < OLD_MS) return null;
    return { title: "No picture", text: `has come for ${Math.floor(age / 1000)} s, though the camera runs`, tone: "warning" };
  }

  #cover({ title, text }) {
    say(this.#title, title);
    say(this.#text, text);
    const age = Math.floor(this.#passed() / 1000);
    say(this.#age, age >= 3 && title !== "No picture" ? `last picture ${age} s ago` : "");
    if (!this.#drawnAt) this.#found.textContent = "";
  }
}

/** `2 person, 1 car` */
export function counted(detections) {
  const counts = new Map();
  for (const { label } of detections) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].slice(0, 4).map(([label, count]) => (count > 1 ? `${count} ${label}` : label)).join(", ");
}

customElements.define("camera-tile", CameraTile);
