/** The configuration: what is wrong is underlined where it stands, and what a reload would change is said first. */
import { get, post, sentence } from "./api.js";
import { el, say, shown } from "./dom.js";
import { confirmed, signIn } from "./dialogs.js";
import { store } from "./store.js";

const QUIET_MS = 350;

class ConfigView extends HTMLElement {
  #text = el("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-label": "Configuration, YAML", "aria-describedby": "verdict", oninput: () => this.#edited() });
  #under = el("pre.under", { "aria-hidden": "true" });
  #lines = el("pre.lines", { "aria-hidden": "true" });
  #verdict = el("p.verdict", { id: "verdict", role: "status", "data-verdict": true });
  #errors = el("ol.errors", { "data-errors": true });
  #changes = el("ul.changes", { "data-changes": true });
  #refused = el("p.notice", { "data-refused": true, hidden: true });
  #reload = el("button.primary", { "data-reload": true, onclick: () => this.#press() }, "Reload");
  #revert = el("button", { onclick: () => this.#fill(this.#saved), disabled: true }, "Revert");
  #saved = "";
  #found = [];
  #checks = 0;
  #stop = new AbortController();

  connectedCallback() {
    this.append(el("h1", "Configuration"), el("p.quiet", "Asking …"));
    this.#load();
  }

  disconnectedCallback() {
    this.#stop.abort();
    clearTimeout(this.timer);
  }

  /** Whether there is something that would be lost. */
  get changed() {
    return this.#text.value !== this.#saved;
  }

  async #load() {
    this.seenAs = store.role;
    try {
      const config = await get(`api/v1/config${store.role === "admin" ? "?text=1" : ""}`, this.#stop.signal);
      if (this.changed && config.text === this.#saved) this.digest = config.digest;
      else this.#build(config);
    } catch (error) {
      if (!this.#stop.signal.aborted) this.lastChild.replaceWith(el("p.notice", { role: "alert" }, sentence(error)));
    }
  }

  #build({ path, text, effective, reloadable, digest }) {
    const editor = el("div.editor", { "data-editor": true }, this.#lines, el("div.layers", this.#under, this.#text));
    const effect = el("details", el("summary", "In effect, with every default"), shown(effective));
    Object.assign(this, { reloadable, path, digest });
    this.replaceChildren(...[
      el("h1", "Configuration"),
      el("p.lead", path ? [el("code", path), text !== null && store.role !== "admin" ? " Secrets are hidden. Edits are checked here; only an admin can put them in place." : ""] : "It runs without a configuration file: everything came from the command line."),
      text === null ? null : el("div.config",
        el("section", { "aria-label": "Editor" }, editor, el("p.actions", this.#reload, this.#revert)),
        el("section.result", { "aria-label": "Check" }, this.#verdict, this.#errors, this.#refused, this.#changes)),
      effect,
    ].filter(Boolean));
    if (text === null) return;
    store.addEventListener("change", this.#rights, this.#stop);
    this.#saved = text;
    this.#fill(text);
  }

  /** After a login the text comes again, whole; edits stay where nothing was hidden from them, which would be lost in the file. */
  #rights = () => {
    if (store.role !== this.seenAs) this.#load();
    this.#offer();
  };

  #fill(text) {
    this.#text.value = text;
    this.#edited(0);
  }

  #edited(delay = QUIET_MS) {
    this.#revert.disabled = !this.changed;
    this.#found = [];
    this.#underline();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#check(), delay);
  }

  async #check() {
    const turn = ++this.#checks;
    say(this.#verdict, "Checking …");
    try {
      const found = await post("api/v1/config/check", { text: this.#text.value }, this.#stop.signal);
      if (turn === this.#checks) this.#show(found);
    } catch (error) {
      if (turn === this.#checks && !this.#stop.signal.aborted) this.#show({ ok: false, text: sentence(error), errors: [], changes: [], refused: null });
    }
  }

  #show({ ok, text, errors, changes, refused }) {
    this.#found = errors;
    this.ok = ok && !(refused && this.changed);
    this.changes = changes;
    this.#verdict.className = `verdict ${ok ? "passed" : "failed"}`;
    say(this.#verdict, ok ? text || "Nothing is wrong." : errors.length ? `${errors.length} ${errors.length === 1 ? "thing is" : "things are"} wrong` : text);
    this.#errors.replaceChildren(...errors.map((error) => this.#item(error)));
    const why = this.changed ? refused : null;
    this.#refused.hidden = !why;
    say(this.#refused, why ?? "");
    this.#changes.replaceChildren(...(changes.length ? changes.map((change) => el("li", change)) : ok && this.changed && !why ? [el("li", "nothing")] : []));
    this.#underline();
    this.#offer();
  }

  #item(error) {
    const { message, hint, file, line, column } = error, place = `line ${line}, column ${column ?? 1}`;
    const where = !line ? file : this.#here(error) ? el("button.where", { onclick: () => this.#go(error) }, place) : `${file}, ${place}`;
    return el("li", where, el("span", message), hint ? el("small", hint) : null);
  }

  /** Not in a file beside this one. */
  #here({ file }) {
    return !file || file === this.path;
  }

  #go({ line, column, message }) {
    const at = this.#text.value.split("\n").slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0) + (column ?? 1) - 1;
    this.#text.focus();
    this.#text.setSelectionRange(at, at);
    [...this.#under.querySelectorAll("u")].find(({ title }) => title === message)?.scrollIntoView({ block: "nearest" });
  }

  /** The layer beneath holds the same text, so that its underlines lie where the words are, and scrolls with it. */
  #underline() {
    const lines = this.#text.value.split("\n"), found = this.#found.filter((error) => this.#here(error));
    const pieces = lines.map((line, index) => this.#pieces(line, found.filter(({ line }) => line === index + 1)));
    this.#under.replaceChildren(...pieces.flatMap((piece) => [...piece, "\n"]), " ");
    const bad = new Set(found.map(({ line }) => line));
    this.#lines.replaceChildren(...lines.flatMap((_, index) => [bad.has(index + 1) ? el("b", String(index + 1)) : String(index + 1), "\n"]));
  }

  #pieces(line, errors) {
    let at = 0;
    const pieces = [];
    for (const { column, end_column, message } of errors.sort((one, other) => (one.column ?? 1) - (other.column ?? 1))) {
      const from = Math.max(at, Math.min((column ?? 1) - 1, line.length)), to = Math.max(from, Math.min((end_column ?? line.length + 1) - 1, line.length));
      pieces.push(line.slice(at, from), el("u", { "data-error": true, title: message }, line.slice(from, to) || " "));
      at = to;
    }
    return [...pieces, line.slice(at)];
  }

  #offer() {
    const admin = store.role === "admin";
    say(this.#reload, admin ? (this.changed ? "Save and reload …" : "Reload") : "Reload as admin …");
    this.#reload.disabled = this.reloadable === false || (admin && !this.ok);
    this.#reload.title = this.reloadable === false ? "This run can't be reloaded" : "";
  }

  async #press() {
    if (store.role !== "admin") return signIn("A reload needs an admin token.");
    const changed = this.changed;
    const what = changed ? "The file is written, the old one kept beside it, and edgeinfer reloads." : "The file is read again.";
    if (!(await confirmed("Reload the configuration?", what, this.changes ?? []))) return;
    this.#reload.disabled = true;
    say(this.#verdict, "Reloading …");
    try {
      const { text, digest } = await post("api/v1/reload", changed ? { text: this.#text.value, digest: this.digest } : {});
      if (changed) [this.#saved, this.digest] = [this.#text.value, digest];
      this.#done("passed", text);
    } catch (error) {
      this.#done("failed", sentence(error));
    }
    store.refresh();
  }

  #done(verdict, text) {
    clearTimeout(this.timer);
    this.#checks += 1;
    this.#revert.disabled = !this.changed;
    this.#verdict.className = `verdict ${verdict}`;
    say(this.#verdict, text);
    this.#changes.replaceChildren();
    this.#offer();
  }
}

customElements.define("config-view", ConfigView);
