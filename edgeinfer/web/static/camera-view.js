/** One camera, large: its picture, its numbers, and a filter of what is drawn. */
import { address } from "./api.js";
import { classColour } from "./draw.js";
import { CameraTile } from "./camera-tile.js";
import { el, facts, head, mark, milliseconds, number, say, stateWord } from "./dom.js";
import { fittingWidth, live } from "./live.js";
import { store } from "./store.js";

const STAGES = ["queue", "preprocess", "wait", "infer", "decode", "publish"], PERIOD_MS = 250;

class CameraView extends HTMLElement {
  #classes = new Map(); // class_id → { box, count, label } of the filter
  #least = 0;
  #late = 0;
  #sizes = new ResizeObserver(() => this.#watch());

  constructor(name) {
    super();
    this.name = name;
  }

  connectedCallback() {
    this.tile = new CameraTile(this.name);
    this.tile.wanted = (found) => this.#wanted(found);
    const picture = `api/v1/sources/${encodeURIComponent(this.name)}/`;
    this.#parts = {
      state: el("p.state", { "data-state": true }),
      numbers: el("div", { "data-numbers": true }),
      stages: el("ul.stages", { "data-stages": true, "aria-label": "Milliseconds of the shown picture by stage" }),
      drops: el("div", { "data-drops": true }),
      classes: el("div.classes", { "data-classes": true }),
      found: el("tbody", { "data-found": true }),
      score: el("output", "0 %"),
    };
    this.append(
      el("div.stage",
        el("header.head", el("a", { href: "#/", "data-back": true, "aria-label": "All cameras" }, "←"), el("h1", { tabindex: -1 }, this.name), this.#parts.state, this.#siblings(),
          el("span.links",
            el("a", { href: address(`${picture}snapshot.jpg?boxes=1`), target: "_blank", rel: "noopener", "data-snapshot": true }, "Snapshot"),
            el("a", { href: address(`${picture}stream.mjpg?boxes=1`), target: "_blank", rel: "noopener" }, "MJPEG"))),
        this.tile),
      el("aside.side", { "aria-label": `Numbers of ${this.name}` },
        section("Now", this.#parts.numbers), section("This picture", this.#parts.stages), section("Dropped", this.#parts.drops),
        section("Drawn", this.#slider(), this.#parts.classes),
        section("Found", el("table", head("Class", "Score", "Track", "Box"), this.#parts.found))),
    );
    this.tile.addEventListener("drawn", this.#onDrawn);
    store.addEventListener("change", this.#show);
    this.#sizes.observe(this.tile);
    this.#watch();
    this.#show();
  }

  #parts = {};

  disconnectedCallback() {
    store.removeEventListener("change", this.#show);
    this.#sizes.disconnect();
  }

  neighbour(step) {
    const names = Object.keys(store.status?.sources ?? {});
    return names[names.indexOf(this.name) + step];
  }

  #siblings() {
    return [[-1, "Previous camera", "‹"], [1, "Next camera", "›"]].map(([step, label, sign]) =>
      el("button.plain", { "aria-label": label, onclick: () => this.neighbour(step) && (location.hash = `#/camera/${encodeURIComponent(this.neighbour(step))}`) }, sign));
  }

  #slider() {
    const change = ({ target }) => {
      this.#least = target.valueAsNumber / 100;
      say(this.#parts.score, `${target.value} %`);
    };
    return el("label.slider", "Score from ", el("input", { type: "range", min: 0, max: 95, step: 5, value: 0, oninput: change, "data-score": true }), this.#parts.score);
  }

  #watch() {
    const known = store.source(this.name) || !store.status;
    if (known) live.watch([this.name], fittingWidth(this.tile.pixels || 640));
  }

  #wanted({ class_id, score }) {
    return score >= this.#least && this.#classes.get(class_id)?.box.checked !== false;
  }

  #onDrawn = ({ detail: header }) => {
    if (performance.now() - this.#late < PERIOD_MS) return;
    this.#late = performance.now();
    this.#showClasses(header.detections);
    this.#parts.found.replaceChildren(...header.detections.filter(this.tile.wanted).slice(0, 50).map(row));
    this.#showStages(header.timing_ms);
  };

  #showClasses(detections) {
    for (const each of this.#classes.values()) each.now = 0;
    for (const { class_id, label } of detections) {
      if (!this.#classes.has(class_id)) this.#classes.set(class_id, this.#choice(class_id, label));
      this.#classes.get(class_id).now += 1;
    }
    for (const { count, now } of this.#classes.values()) say(count, String(now));
  }

  #choice(id, label) {
    const box = el("input", { type: "checkbox", checked: true, "data-class": label }), count = el("b");
    const swatch = el("i.swatch");
    swatch.style.background = classColour(id);
    this.#parts.classes.append(el("label", box, swatch, label, count));
    return { box, count, now: 0 };
  }

  #showStages(timing) {
    const known = STAGES.filter((stage) => timing[stage] != null);
    const items = known.map((stage, index) => {
      const bar = el("i", { class: `s${STAGES.indexOf(stage)}` });
      bar.style.width = `${Math.min(100, (100 * timing[stage]) / (timing.total || 1))}%`;
      return el("li", el("span", stage), el("span.track", bar), el("b", number(timing[stage], 1)));
    });
    this.#parts.stages.replaceChildren(...items, el("li.total", el("span", "capture → publish"), el("span"), el("b", milliseconds(timing.total))));
  }

  #show = () => {
    const source = store.source(this.name);
    if (!source) return say(this.#parts.state, store.status ? "There is no such camera." : "");
    say(this.#parts.state, source.reason ? `${stateWord(source.state)}: ${source.reason.text}` : stateWord(source.state));
    mark(this.#parts.state, "data-state", source.state);
    const last = this.tile.last;
    this.#parts.numbers.replaceChildren(facts([
      ["frames/s", number(source.fps, 1)], ["captured", number(source.captured)], ["inferred", number(source.inferred)], ["in flight", number(source.in_flight)],
      ["stalls", number(source.stalls)], ["opened again", number(source.reconnects)],
      ["picture", last ? `${last.width} × ${last.height}, number ${number(last.frame_id)}` : "–"],
      ["decoder", source.decoder ? `${source.decoder.name}: ${source.decoder.why}` : "–"],
    ]));
    const drops = Object.entries(source.dropped_by_reason).filter(([, count]) => count);
    this.#parts.drops.replaceChildren(drops.length ? facts(drops.map(([why, count]) => [why, `${number(count)} (${number((100 * count) / (source.captured || 1))} %)`])) : el("p.quiet", "Nothing was dropped."));
  };
}

const section = (title, ...content) => el("section", el("h2", title), content);

const row = ({ label, score, track_id, box }) =>
  el("tr", el("td", label), el("td", number(score, 2)), el("td", track_id == null ? "" : `#${track_id}`), el("td", box.map((edge) => Math.round(edge)).join(" ")));

customElements.define("camera-view", CameraView);
