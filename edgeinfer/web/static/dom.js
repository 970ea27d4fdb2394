/** Elements without HTML text, and numbers for people: whatever comes from the server can only become text. */

/** An element, `NAME.CLASS…`, perhaps with attributes (`onNAME` listens, false and null are left out), and its children. */
export function el(selector, ...content) {
  const [name, ...classes] = selector.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  const attributes = content[0]?.constructor === Object ? content.shift() : {};
  for (const [key, value] of Object.entries(attributes)) give(node, key, value);
  node.append(...content.flat(3).filter((child) => child != null && child !== false));
  return node;
}

function give(node, key, value) {
  if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
  else if (value === true) node.setAttribute(key, "");
  else if (value != null && value !== false) node.setAttribute(key, value);
}

/** Sets text only where it differs: no layout, no announcement for what is as it was. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The same for an attribute; null takes it away. */
export function mark(node, name, value) {
  if (value == null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** A state as a word of its own. */
export const stateWord = (state) => (state ? state[0].toUpperCase() + state.slice(1) : "Unknown");

const BACKENDS = { tensorrt: "TensorRT", onnxruntime: "ONNX Runtime", rtx: "RTX" };
/** `tensorrt-fp16` as people write it. */
export const backendWords = (name) =>
  (name || "").split("-").map((part) => BACKENDS[part] ?? part.replace(/^((fp|bf|int)\d+|cpu|cuda|dla\d?)$/, (all) => all.toUpperCase())).join(" ");

export const number = (value, digits = 0) =>
  value == null || Number.isNaN(value) ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const milliseconds = (value) => (value < 1000 || value == null ? `${number(value, value < 10 && value != null ? 1 : 0)} ms` : `${number(value / 1000, 1)} s`);

/** Bytes with the unit that fits. */
export function bytes(value) {
  if (value == null) return "–";
  const step = value < 1e3 ? 0 : Math.min(4, Math.floor(Math.log10(value) / 3));
  return `${number(value / 1000 ** step, step && value / 1000 ** step < 100 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
}

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds == null) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min` : `${Math.round(s / 86400)} days`;
}

/** The time of day of CLOCK_REALTIME nanoseconds, with the date where that is not today's. */
export function clock(nanoseconds) {
  const date = new Date(nanoseconds / 1e6);
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
}

export function facts(entries) {
  return el("dl.facts", entries.map(([term, value]) => [el("dt", term), el("dd", value)]));
}

/** The first row of a table. */
export const head = (...titles) => el("thead", el("tr", titles.map((title) => el("th", { scope: "col" }, title))));

/** Anything that JSON can hold, in words. */
export function shown(value) {
  if (value === null || value === "" || value === undefined) return "–";
  if (Array.isArray(value)) return value.every((item) => typeof item !== "object") ? value.join(", ") || "none" : el("ul.plain", value.map((item) => el("li", shown(item))));
  if (typeof value === "object") {
    const entries = Object.entries(value);
    return entries.length ? facts(entries.map(([key, inner]) => [key.replaceAll("_", " "), shown(inner)])) : "none";
  }
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

/** Says it to those who don't see it. */
export const announce = (text) => say(document.querySelector("[data-announcer]"), text);
