/** How it is, in a line: state in words, what runs it, how fast, how warm; below it the news. */
import { post } from "./api.js";
import { help, signIn } from "./dialogs.js";
import { backendWords, duration, el, mark, milliseconds, number, say, stateWord } from "./dom.js";
import { live } from "./live.js";
import { store } from "./store.js";

const THEMES = { auto: "light", light: "dark", dark: "auto" }, SIGNS = { auto: "◐", light: "☀", dark: "☾" };
const DOWN = ["stalled", "reconnecting", "failed"];
const GOOD = ["reloaded", "engine-ready"], BAD = ["fatal", "engine-failed", "reload-failed", "sink-failed"];

class TopBar extends HTMLElement {
  #host = el("span.host");
  #state = el("strong", { "data-bar-state": true }, "Connecting …");
  #facts = new Map();
  #role = el("span.role", { "data-role": true });
  #login = el("button", { "data-login-open": true, hidden: true, onclick: () => signIn() }, "Sign in");
  #logout = el("button", { "data-logout": true, hidden: true, onclick: () => leave() }, "Sign out");
  #theme = el("button.icon", { "data-theme-button": true, onclick: () => this.turn() });
  #text = el("span.text");
  #progress = el("progress", { max: 1, "aria-label": "Engine", hidden: true });
  #left = el("b", { "data-left": true });
  #news = el("div.news", { "data-news": true, hidden: true }, this.#text, this.#progress, this.#left);
  #notice = el("p.notice", { "data-notice": true, role: "alert", hidden: true });

  connectedCallback() {
    const facts = ["backend", "fps", "latency", "heat", "power", "gpu", "rate"].map((key) => {
      const node = el("span.fact", { [`data-bar-${key}`]: true, hidden: true });
      this.#facts.set(key, node);
      return node;
    });
    this.append(
      el("div.bar",
        el("a.brand", { href: "#/" }, "edgeinfer"), this.#host,
        el("span.pill", el("i.dot"), this.#state), el("span.facts-line", facts),
        el("span.tools", this.#role, this.#login, this.#logout, this.#theme, el("button.icon", { "aria-label": "Keys", "aria-keyshortcuts": "?", onclick: () => help() }, "?"))),
      this.#news, this.#notice,
    );
    this.#themed();
    store.addEventListener("change", () => this.#show());
    live.addEventListener("connection", () => this.#show());
  }

  /** The next theme: as the system has it, light, dark. */
  turn() {
    const root = document.documentElement, theme = THEMES[root.dataset.theme];
    root.dataset.theme = theme;
    keep(theme);
    this.#themed();
    document.dispatchEvent(new Event("theme"));
  }

  #themed() {
    const { theme } = document.documentElement.dataset;
    say(this.#theme, SIGNS[theme]);
    mark(this.#theme, "aria-label", `Theme: ${theme === "auto" ? "as the system" : theme}`);
  }

  #show() {
    const { status, trouble, info, role } = store;
    const stranger = trouble?.status === 401;
    mark(this, "data-state", stranger ? null : trouble ? "failed" : status?.daemon.state);
    say(this.#state, stranger ? "Not signed in" : trouble ? "Not connected" : words(status));
    if (info) say(this.#host, info.host);
    say(this.#role, role && role !== "local" ? role : "");
    this.#login.hidden = !status || role === "admin";
    this.#logout.hidden = role !== "viewer" && role !== "admin";
    const refusal = trouble && !stranger ? `${trouble.message}. What is shown is old.` : live.text;
    this.#notice.hidden = !refusal;
    say(this.#notice, refusal ?? "");
    if (status) this.#showDaemon(status.daemon);
  }

  #showDaemon({ backend, detail, fps, latency_ms, machine, rate, reason }) {
    const heat = warmest(machine?.temperatures_c), slow = machine?.throttled?.length > 0;
    this.#fact("backend", backend && backendWords(backend), `${backend}${detail ? `: ${detail}` : ""}`);
    this.#fact("fps", fps != null && `${number(fps, fps < 10 ? 1 : 0)} fps`, "Results per second, all cameras");
    this.#fact("latency", latency_ms?.total && milliseconds(latency_ms.total.p50), "From capture to publish, half of the frames are faster");
    this.#fact("heat", heat && `${number(heat[1])} °C${slow ? ", throttled" : ""}`, slow ? `Slowed down: ${machine.throttled.join(", ")}` : heat?.[0], slow);
    this.#fact("power", machine?.power_mode, power(machine?.power_mw));
    this.#fact("gpu", machine?.gpu_load != null && `GPU ${number(100 * machine.gpu_load)} %`, "Share of the GPU's time in use");
    this.#fact("rate", rate < 1 && `${number(100 * rate)} % of frames`, "While throttled, live cameras are used at a share of their frames", true);
    this.#tell(reason);
  }

  #fact(key, text, title, warns = false) {
    const node = this.#facts.get(key);
    node.hidden = !text;
    say(node, text || "");
    mark(node, "title", title || null);
    node.classList.toggle("warns", warns);
  }

  #tell(reason) {
    this.#news.hidden = !reason;
    if (!reason) return;
    const { fraction, left } = progress(reason);
    say(this.#text, reason.text);
    mark(this.#news, "data-code", reason.code);
    mark(this.#news, "data-tone", GOOD.includes(reason.code) ? "good" : BAD.includes(reason.code) ? "error" : reason.code === "engine-building" ? "busy" : "warning");
    this.#progress.hidden = fraction === null;
    if (fraction !== null) this.#progress.value = fraction;
    say(this.#left, left === null ? "" : `about ${duration(left)} left`);
  }
}

function keep(theme) {
  try {
    localStorage.setItem("edgeinfer-theme", theme);
  } catch {
    // It is chosen for this visit.
  }
}

function words(status) {
  if (!status) return "Connecting …";
  const { daemon, sources } = status;
  if (daemon.state !== "running") return daemon.state === "starting" ? "Loading the model" : stateWord(daemon.state);
  const states = Object.values(sources).map(({ state }) => state);
  const down = states.filter((state) => DOWN.includes(state)).length;
  return down ? `Running, ${down} of ${states.length} down` : "Running";
}

/** A build's share and seconds left, as its text tells them: `Timing kernels 42%, 120 s`. */
export function progress({ code, text }) {
  const [, percent, elapsed] = (code === "engine-building" && /(\d+)%, (\d+) s/.exec(text)) || [];
  const fraction = percent === undefined ? null : percent / 100;
  return { fraction, left: fraction && fraction > 0.03 ? (elapsed * (1 - fraction)) / fraction : null };
}

const warmest = (zones) => Object.entries(zones ?? {}).sort((one, other) => other[1] - one[1])[0];
const power = (rails) => Object.entries(rails ?? {}).map(([rail, milliwatts]) => `${rail} ${number(milliwatts / 1000, 1)} W`).join(", ");

async function leave() {
  await post("logout").catch(() => null);
  location.reload();
}

customElements.define("top-bar", TopBar);
