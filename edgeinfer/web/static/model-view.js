/** The model that runs: its card, its classes, its engine, and how far that is from the reference. */
import { get, sentence } from "./api.js";
import { classColour } from "./draw.js";
import { backendWords, bytes, duration, el, facts, head, number, shown } from "./dom.js";

class ModelView extends HTMLElement {
  #stop = new AbortController();

  connectedCallback() {
    this.append(el("h1", "Model"), el("p.quiet", "Asking …"));
    this.#load();
  }

  disconnectedCallback() {
    this.#stop.abort();
  }

  async #load() {
    try {
      const model = await get("api/v1/model", this.#stop.signal);
      this.replaceChildren(el("h1", model.name ?? "Model"), ...(model.id ? parts(model) : [el("p.quiet", "It is being loaded.")]));
    } catch (error) {
      if (!this.#stop.signal.aborted) this.lastChild.replaceWith(el("p.notice", { role: "alert" }, sentence(error)));
    }
  }
}

function parts({ id, task, input_size, labels, card, backend, detail, engine }) {
  const { description, labels: _, ...more } = card ?? {};
  const runs = facts([
    ["id", el("code", id)], ["task", task], ["input", `${input_size.join(" × ")} pixels`],
    ["runs on", backend ? backendWords(backend) : "nothing yet: it is being loaded"], ["how", detail || "–"],
  ]);
  const engines = engine ? [explained(engine), verified(engine.verification), built(engine)] : [];
  return [
    description ? el("p.lead", description) : null,
    el("div.panels", panel("model", "What runs", runs), ...engines, panel("card", "Card", shown(more)), panel("labels", `${labels.length} classes`, classes(labels))),
  ].filter(Boolean);
}

const panel = (key, title, ...content) => el("section.panel", { "data-panel": key }, el("h2", title), content);

const classes = (labels) => el("ol.labels", labels.map((label, id) => {
  const swatch = el("i.swatch");
  swatch.style.background = classColour(id);
  return el("li", swatch, label);
}));

const explained = ({ explain }) =>
  panel("explain", "Why this engine", (explain ?? []).length ? el("ul.sentences", explain.map((text) => el("li", text))) : el("p.quiet", "Nothing is told."));

const VERDICTS = { passed: "Passed: within the tolerance", exceeded: "Beyond the tolerance, and kept because that was asked for", skipped: "Skipped" };

function verified(found) {
  if (!found) return panel("verification", "Compared with ONNX Runtime", el("p.quiet", "It was not compared."));
  const { state, reason, samples, inputs, outputs, tolerance, latency_ms } = found;
  const rows = Object.entries(outputs ?? {}).map(([name, error]) =>
    el("tr", el("th", { scope: "row" }, name), ...["max_error", "mean_error"].map((key) => el("td", small(error[key]), share(error[key], error.scale, tolerance?.[key]))), el("td", small(error.scale))));
  return panel("verification", "Compared with ONNX Runtime",
    el("p", { class: `verdict ${state}` }, `${VERDICTS[state] ?? state}${reason ? `: ${reason}` : ""}`),
    rows.length ? el("div.scroll", { tabindex: 0, role: "region", "aria-label": "Errors by output" }, el("table", head("Output", "Largest error", "Mean error", "Largest value"), el("tbody", rows))) : null,
    el("p.quiet", [`${number(samples)} inputs${inputs ? `: ${inputs}` : ""}`, latency_ms == null ? "" : `${number(latency_ms, 2)} ms an inference`].filter(Boolean).join("; ")));
}

const small = (value) => (value == null ? "–" : value < 100 ? value.toPrecision(2) : number(value));

/** How much of the tolerance an error uses up. */
function share(error, scale, tolerance) {
  if (!tolerance || !scale) return null;
  const used = error / scale / tolerance, bar = el("i", { class: used > 1 ? "bad" : "good" });
  bar.style.width = `${Math.min(100, 100 * used)}%`;
  return el("span.track", { title: `${number(100 * used, 1)} % of the tolerance` }, bar);
}

function built({ key, manifest }) {
  const { build = {}, fields = {}, plan_bytes, verification, ...rest } = manifest ?? {};
  const { seconds, ...more } = build;
  return panel("engine", "Engine",
    facts([["key", el("code", key)], ["size", bytes(plan_bytes)], ["built in", duration(seconds)]]),
    details("Built for", fields), details("How it was built", more), details("Its file", rest));
}

const details = (title, content) => el("details", el("summary", title), shown(content));

customElements.define("model-view", ModelView);
