/** All cameras, as large as the window lets them be. Arrows go from one to the next, Enter opens it. */
import { el, say } from "./dom.js";
import { CameraTile } from "./camera-tile.js";
import { fittingWidth, live } from "./live.js";
import { store } from "./store.js";

const GAP = 10, PLATE = 34, SMALLEST = 280;

class CameraGrid extends HTMLElement {
  #list = el("ul.tiles", { "data-grid": true, onkeydown: (event) => this.#move(event), onfocusin: (event) => this.#rove(event.target) });
  #empty = el("p.quiet", { hidden: true });
  #tiles = new Map();
  #columns = 1;
  #sizes = new ResizeObserver(() => requestAnimationFrame(() => this.#arrange())); // it changes its own height

  connectedCallback() {
    this.append(el("h1.unseen", "Cameras"), this.#empty, this.#list);
    store.addEventListener("change", this.#show);
    this.#sizes.observe(this);
    this.#show();
  }

  disconnectedCallback() {
    store.removeEventListener("change", this.#show);
    this.#sizes.disconnect();
  }

  #show = () => {
    const names = store.status ? Object.keys(store.status.sources) : [];
    this.#empty.hidden = names.length > 0;
    if (!names.length) say(this.#empty, store.status ? "No cameras are configured." : "Connecting …");
    if (String(names) !== String([...this.#tiles.keys()])) this.#place(names);
  };

  #place(names) {
    const before = this.#tiles;
    this.#tiles = new Map(names.map((name) => [name, before.get(name) ?? new CameraTile(name)]));
    this.#list.replaceChildren(...[...this.#tiles.values()].map((tile) => el("li", tile)));
    this.#links().forEach((link, index) => (link.tabIndex = index ? -1 : 0));
    this.#arrange();
  }

  #links() {
    return [...this.#tiles.values()].map((tile) => tile.link);
  }

  /** So many columns that the tiles are as wide as can be without scrolling; where that is too small, it scrolls. */
  #arrange() {
    const count = this.#tiles.size, width = this.#list.clientWidth;
    if (!count || !width) return;
    const height = innerHeight - this.#list.getBoundingClientRect().top - scrollY - GAP;
    const fit = (columns) => {
      const rows = Math.ceil(count / columns);
      return Math.min((width - GAP * (columns - 1)) / columns, ((height - GAP * (rows - 1)) / rows - PLATE) * (16 / 9));
    };
    const most = Math.max(1, Math.floor((width + GAP) / (SMALLEST + GAP)));
    const choices = Array.from({ length: Math.min(count, most) }, (_, index) => index + 1);
    this.#columns = choices.reduce((best, columns) => (fit(columns) > fit(best) ? columns : best), choices.at(-1));
    const widest = (width - GAP * (this.#columns - 1)) / this.#columns;
    const tile = Math.max(Math.min(fit(this.#columns), widest), Math.min(widest, SMALLEST * 1.3));
    this.#list.style.gridTemplateColumns = `repeat(${this.#columns}, ${Math.floor(tile)}px)`;
    live.watch([...this.#tiles.keys()], fittingWidth(tile * Math.min(devicePixelRatio, 2)));
  }

  #rove(target) {
    const links = this.#links();
    if (links.includes(target)) for (const link of links) link.tabIndex = link === target ? 0 : -1;
  }

  #move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.#columns, ArrowDown: this.#columns, Home: -Infinity, End: Infinity }[event.key];
    const links = this.#links(), at = links.indexOf(document.activeElement);
    if (!step || at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(links.length - 1, at + step));
    if (Number.isFinite(step) && Math.abs(step) > 1 && (to - at) % step) return; // no row there
    links[to].focus();
  }

  /** Where the keyboard was before a camera was opened. */
  resume(name) {
    this.#tiles.get(name)?.link.focus();
  }
}

customElements.define("camera-grid", CameraGrid);
