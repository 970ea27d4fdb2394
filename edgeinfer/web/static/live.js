/**
 * Pictures with their boxes, `u32 little endian | header | JPEG` a message. Each gives its credit back once it is drawn
 * (event `frame`, in an animation frame), so that the server never sends more than a browser draws.
 */
import { address, rights } from "./api.js";
import { store } from "./store.js";

const FIRST_WAIT_MS = 500, LAST_WAIT_MS = 8000, CROWDED_MS = 10000, IDLE_MS = 60000, SLEPT_MS = 2000;
const utf8 = new TextDecoder();

class Live extends EventTarget {
  connected = false;
  text = ""; // why there is no connection, in words
  #socket = null;
  #sources = [];
  #width = 640;
  #wait = FIRST_WAIT_MS;
  #timer = 0;
  #pending = [];
  #turn = 0;
  #lag = Date.now() - performance.now();

  constructor() {
    super();
    document.addEventListener("visibilitychange", () => this.#adjust());
    addEventListener("pagehide", () => this.#leave()); // a browser may keep the page, frozen, for the way back
    addEventListener("pageshow", () => this.#adjust());
  }

  /** What is to be seen from now on; nothing at all pauses. */
  watch(sources, width = this.#width) {
    if (width === this.#width && String(sources) === String(this.#sources)) return;
    this.#sources = [...sources];
    this.#width = width;
    this.#adjust();
  }

  /** Forgets the connection, for instance after a login. */
  restart() {
    this.#wait = FIRST_WAIT_MS;
    this.#leave();
    this.#release();
    this.#adjust();
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #wanted() {
    return document.hidden ? [] : this.#sources;
  }

  #asked() {
    return `${this.#width} ${this.#wanted()}`;
  }

  #adjust() {
    clearTimeout(this.#timer);
    const sources = this.#wanted();
    if (!sources.length) {
      this.#release();
      this.#timer = setTimeout(() => this.#socket?.close(1000), IDLE_MS); // a seat is for those who look
    }
    if (this.#socket) this.#send({ sources, width: this.#width });
    else if (sources.length) this.#open(sources);
  }

  #open(sources) {
    const url = address("live");
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("sources", sources.join(","));
    url.searchParams.set("width", this.#width);
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const asked = this.#asked();
    socket.onopen = () => this.#opened(socket, asked);
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = (event) => socket === this.#socket && this.#closed(event);
    this.#socket = socket;
  }

  #opened(socket, asked) {
    if (socket !== this.#socket) return;
    this.#tell(true, "");
    if (asked !== this.#asked()) this.#adjust();
  }

  #closed({ code, reason }) {
    this.#socket = null;
    this.#release();
    if (!this.#wanted().length) return;
    if (code === 4401) return rights.dispatchEvent(new Event("denied"));
    if (code === 4403) return this.#tell(false, reason || "the server refuses pages of another address");
    if (code === 4404) store.refresh();
    const wait = code === 4429 ? CROWDED_MS : this.#wait * (0.75 + Math.random() / 2);
    this.#wait = Math.min(this.#wait * 2, LAST_WAIT_MS);
    this.#tell(false, reason || "the connection is lost");
    this.#timer = setTimeout(() => this.#adjust(), wait);
  }

  #tell(connected, text) {
    Object.assign(this, { connected, text });
    this.dispatchEvent(new Event("connection"));
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Whether this machine was asleep: what it has received was sent before that, and begins anew. */
  #slept() {
    const lag = Date.now() - performance.now(), slept = lag - this.#lag > SLEPT_MS;
    this.#lag = lag;
    if (slept) this.restart();
    return slept;
  }

  async #receive(socket, data) {
    if (this.#slept()) return;
    const length = new DataView(data).getUint32(0, true);
    const header = JSON.parse(utf8.decode(new Uint8Array(data, 4, length)));
    this.#wait = FIRST_WAIT_MS;
    if (header.kind !== "detections") return store.push(header);
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" })).catch(() => null);
    if (socket !== this.#socket) return bitmap?.close();
    this.#pending.push({ header, bitmap });
    if (document.hidden) this.#release();
    else this.#turn ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#turn = 0;
    if (this.#slept()) return;
    for (const detail of this.#pending) if (detail.bitmap) this.dispatchEvent(new CustomEvent("frame", { detail }));
    this.#release();
  }

  /** Gives back what pictures hold: their memory, and their credits. */
  #release() {
    const drawn = this.#pending.length;
    for (const { bitmap } of this.#pending) bitmap?.close();
    this.#pending = [];
    if (drawn) this.#send({ drawn });
  }
}

export const live = new Live();

/** The widths that are asked for: few, as all viewers of one share its encoding. */
export function fittingWidth(pixels) {
  return [320, 480, 640, 960, 1280, 1920].find((width) => width >= pixels * 0.9) ?? 1920;
}
