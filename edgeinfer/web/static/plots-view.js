/** The last ten minutes: where the milliseconds go, and what the machine says to it. */
import { get, sentence } from "./api.js";
import { bytes, el, milliseconds, number, say } from "./dom.js";

const SECONDS = 600, LEAST_S = 120, PERIOD_MS = 1000, GAP_S = 3, HEIGHT = 190;
const tenths = (value) => number(value, 1);
const DARK = matchMedia("(prefers-color-scheme: dark)");
const FIGURES = [
  { key: "latency", title: "Latency by stage", unit: milliseconds, stacked: true, series: ({ latency_ms: { total, receive, ...stages } }) => stages },
  { key: "fps", title: "Results per second", unit: tenths, series: ({ fps }) => ({ fps }) },
  { key: "dropped", title: "Dropped per second, by reason", unit: tenths, stacked: true, series: ({ dropped }) => dropped },
  { key: "temperature", title: "Temperature", unit: (value) => `${number(value, 1)} °C`, floating: true, series: ({ temperature_c }) => temperature_c },
  { key: "memory", title: "Memory of edgeinfer", unit: bytes, series: ({ rss_bytes }) => ({ resident: rss_bytes }) },
  { key: "cpu", title: "CPU of edgeinfer, GPU of the machine", unit: (value) => number(value, 2), series: ({ cpu, gpu_load }) => ({ "CPU cores": cpu, ...(measured(gpu_load) ? { "GPU share": gpu_load } : {}) }) },
];

const measured = (values) => Boolean(values?.some((value) => value != null));

class PlotsView extends HTMLElement {
  #history = { t_ns: [] };
  #figures = [];
  #trouble = el("p.notice", { role: "status", hidden: true });
  #sizes = new ResizeObserver(() => this.#figures.forEach((figure) => figure.fit()));
  #stop = new AbortController();

  connectedCallback() {
    this.#figures = FIGURES.map((about) => new Figure(about));
    this.append(el("h1", "The last 10 minutes"), this.#trouble, el("div.plots", this.#figures.map(({ node }) => node)));
    this.#sizes.observe(this);
    DARK.addEventListener("change", this.#again, this.#stop);
    document.addEventListener("theme", this.#again, this.#stop);
    this.#turn();
  }

  disconnectedCallback() {
    this.#stop.abort();
    clearTimeout(this.timer);
    this.#sizes.disconnect();
    this.#figures.forEach((figure) => figure.forget());
  }

  #again = () => this.#figures.forEach((figure) => figure.forget() || figure.show(this.#history));

  async #turn() {
    try {
      if (!document.hidden) await this.#ask();
      this.#trouble.hidden = true;
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#trouble.hidden = false;
      say(this.#trouble, sentence(error));
    }
    if (this.isConnected) this.timer = setTimeout(() => this.#turn(), PERIOD_MS);
  }

  async #ask() {
    const since = this.#history.t_ns.at(-1);
    const more = await get(`api/v1/history${since ? `?since=${BigInt(since)}` : ""}`, this.#stop.signal);
    this.#history = joined(this.#history, more);
    await uplot();
    this.#figures.forEach((figure) => figure.show(this.#history));
  }
}

async function uplot() {
  while (!window.uPlot) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Both after each other, at most ten minutes; what one has not measured is null there. */
export function joined(before, more) {
  if (more.t_ns.at(-1) < before.t_ns.at(-1)) before = { t_ns: [] }; // its clock was set back
  const last = before.t_ns.at(-1) ?? 0;
  const fresh = more.t_ns.filter((t) => t > last).length;
  const old = Math.min(before.t_ns.length, SECONDS - fresh);
  const list = (one, other) => [...tail(one, before.t_ns.length, old), ...tail(other, more.t_ns.length, fresh)];
  const groups = (one = {}, other = {}) => Object.fromEntries([...new Set([...Object.keys(one), ...Object.keys(other)])].map((key) => [key, list(one[key], other[key])]));
  const flat = Object.fromEntries(["t_ns", "fps", "cpu", "rss_bytes", "gpu_load"].map((key) => [key, list(before[key], more[key])]));
  return { ...flat, ...Object.fromEntries(["latency_ms", "dropped", "temperature_c"].map((key) => [key, groups(before[key], more[key])])) };
}

const tail = (values, length, count) => Array.from({ length: count }, (_, index) => values?.[length - count + index] ?? null);

/** One figure; the plot itself is made when its lines are known, and again when they change. */
class Figure {
  #plot = null;
  #names = [];
  #lines = []; // as they were measured, not piled up
  #now = el("b", { "data-now": true });
  #legend = el("ul.legend");
  #holder = el("div.plot");

  constructor(about) {
    this.about = about;
    this.node = el("figure", { "data-plot": about.key }, el("figcaption", about.title, this.#now), this.#holder, this.#legend);
  }

  /** Takes the plot away; the next `show` makes it in the colours of now. */
  forget() {
    this.#plot?.destroy();
    this.#plot = null;
  }

  fit() {
    const width = this.#holder.clientWidth;
    if (this.#plot && width && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }

  show(history) {
    const { series, stacked } = this.about;
    const measuredLines = Object.entries(series(history) ?? {}).filter(([, values]) => measured(values));
    const names = measuredLines.map(([name]) => name);
    const { times, values } = gapped(history.t_ns, measuredLines.map(([, each]) => each));
    this.node.dataset.points = history.t_ns.length;
    this.#lines = values;
    if (!names.length) return this.#empty();
    const data = [times, ...(stacked ? piled(values).reverse() : values)];
    if (String(names) === String(this.#names) && this.#plot) this.#plot.setData(data);
    else this.#make(names, data);
    this.#tell(null);
  }

  #empty() {
    this.forget();
    say(this.#now, "");
    this.#legend.replaceChildren();
    this.#holder.replaceChildren(el("p.quiet", this.about.key === "dropped" ? "Nothing was dropped." : "Nothing was measured."));
  }

  /** The values under the pointer, or the newest. */
  #tell(at) {
    const { unit, stacked } = this.about;
    const values = this.#lines.map((line) => (at == null ? line.at(-1) : line[at]));
    const known = values.filter((value) => value != null);
    [...this.#legend.children].forEach((item, index) => say(item.lastChild, unit(values[index])));
    if (at == null) say(this.#now, unit(!known.length ? null : stacked ? known.reduce((sum, each) => sum + each) : Math.max(...known)));
  }

  #make(names, data) {
    this.forget();
    const { stacked, unit, floating } = this.about;
    const swatches = names.map((name, index) => el("i", { class: `swatch s${(names.length === 1 ? 3 : index) % 6}` }));
    this.#names = names;
    this.#legend.replaceChildren(...names.map((name, index) => el("li", swatches[index], name, el("b"))));
    this.#holder.replaceChildren();
    const colours = swatches.map((swatch) => getComputedStyle(swatch).backgroundColor);
    const panel = getComputedStyle(this.node).backgroundColor, ink = getComputedStyle(this.#holder).color;
    const lines = colours.map((stroke) => ({ stroke, width: stacked ? 1 : 1.5, fill: stacked ? `color-mix(in srgb, ${stroke} 60%, ${panel})` : undefined, points: { show: false } }));
    const grid = { stroke: `color-mix(in srgb, ${ink} 22%, ${panel})`, width: 1 };
    const axis = { stroke: ink, grid, ticks: { ...grid, size: 4 }, font: "11px system-ui, sans-serif" };
    this.#plot = new window.uPlot({
      width: this.#holder.clientWidth || 320, height: HEIGHT,
      series: [{}, ...(stacked ? lines.reverse() : lines)],
      axes: [
        { ...axis, size: 26, space: 60, values: (plot, marks) => marks.map((mark) => new Date(mark * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })), incrs: [60, 120, 300] },
        { ...axis, size: unit === bytes ? 60 : 44, values: (plot, marks) => marks.map((mark) => (unit === bytes ? bytes(mark) : String(mark))) },
      ],
      scales: {
        x: { range: (plot, from, to) => [Math.max(to - SECONDS, Math.min(from, to - LEAST_S)), to] },
        y: { range: (plot, low, high) => (floating ? [Math.floor(low - 2), Math.ceil(high + 2)] : [0, (high || 1) * 1.1]) },
      },
      cursor: { sync: { key: "edgeinfer" }, drag: { x: false, y: false }, y: false },
      legend: { show: false },
      hooks: { setCursor: [(plot) => this.#tell(plot.cursor.idx)] },
    }, data, this.#holder);
    this.#plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
  }
}

/** Each on top of those before it. */
function piled(values) {
  const height = new Array(values[0]?.length ?? 0).fill(0);
  return values.map((line) => line.map((value, at) => (value == null ? (height[at] || null) : (height[at] += value))));
}

/** With a hole where no sample was taken for some seconds, so that no line is drawn across it. */
function gapped(nanoseconds, lines) {
  const times = [], values = lines.map(() => []);
  nanoseconds.forEach((t, index) => {
    const seconds = t / 1e9;
    if (times.length && seconds - times.at(-1) > GAP_S) {
      times.push(times.at(-1) + 1);
      values.forEach((line) => line.push(null));
    }
    times.push(seconds);
    values.forEach((line, which) => line.push(lines[which][index]));
  });
  return { times, values };
}

customElements.define("plots-view", PlotsView);
