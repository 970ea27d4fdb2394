/** The page: which view the address asks for, the keys, and who may see it. */
import { rights } from "./api.js";
import { help, signedIn, signIn } from "./dialogs.js";
import { el, mark } from "./dom.js";
import { live } from "./live.js";
import { store } from "./store.js";
import "./camera-grid.js";
import "./camera-view.js";
import "./plots-view.js";
import "./model-view.js";
import "./events-view.js";
import "./config-view.js";
import "./top-bar.js";

const VIEWS = { cameras: ["camera-grid", "Cameras"], plots: ["plots-view", "Plots"], model: ["model-view", "Model"], events: ["events-view", "Events"], config: ["config-view", "Configuration"] };
const KEYS = { 1: "#/", 2: "#/plots", 3: "#/model", 4: "#/events", 5: "#/config" };
const main = document.querySelector("main");
const Camera = customElements.get("camera-view");
let view = null, shown = null; // and the address that it belongs to

/** `#/camera/yard` → ["camera", "yard"]; what nobody knows is the grid. */
function asked() {
  const [key = "", rest = ""] = location.hash.replace(/^#\/?/, "").split("/");
  if (key === "camera" && rest) return [key, named(rest)];
  return [Object.hasOwn(VIEWS, key) ? key : "cameras", ""];
}

/** What nobody can decode is no camera's name, and is shown as it stands. */
function named(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show(moved = true) {
  const [key, name] = asked(), before = view;
  if (moved && location.hash === shown) return;
  if (moved && before?.changed && !confirm("Leave, and lose what was edited?")) return history.back();
  view = key === "camera" ? new Camera(name) : document.createElement(VIEWS[key][0]);
  shown = location.hash;
  main.dataset.view = key;
  document.title = `${name || VIEWS[key][1]} – edgeinfer`;
  for (const link of document.querySelectorAll("nav a")) mark(link, "aria-current", link.dataset.view === (name ? "cameras" : key) ? "page" : null);
  if (!["camera", "cameras"].includes(key)) live.watch([]);
  main.replaceChildren(view);
  if (!moved) return;
  scrollTo(0, 0);
  if (key === "cameras" && before?.name) view.resume(before.name);
  else main.focus({ preventScroll: true });
}

function press(event) {
  const { key, target, ctrlKey, metaKey, altKey } = event;
  if (ctrlKey || metaKey || altKey || document.querySelector("dialog[open]")) return;
  if (target.matches("input:not([type=range], [type=checkbox]), textarea, select")) return key === "Escape" && target.blur();
  const act = action(key, target);
  if (!act) return;
  event.preventDefault();
  act();
}

function action(key, target) {
  if (key in KEYS) return () => (location.hash = KEYS[key]);
  if (key === "?") return help;
  if (key === "t") return () => document.querySelector("top-bar").turn();
  if (key === "/") return main.querySelector("[type=search]") && (() => main.querySelector("[type=search]").focus());
  const step = target.matches("[type=range]") ? 0 : { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (!(view instanceof Camera)) return null;
  if (key === "Escape") return () => (location.hash = "#/");
  const other = step && view.neighbour(step);
  return other && (() => (location.hash = `#/camera/${encodeURIComponent(other)}`));
}

rights.addEventListener("denied", () => {
  if (!view?.changed) main.replaceChildren(el("p.quiet", "Cameras are shown to those who have a token. ", el("button", { onclick: () => signIn() }, "Sign in")));
  signIn();
});
signedIn.addEventListener("done", async () => {
  await store.refresh();
  live.restart();
  if (!view?.changed) show(false);
});
addEventListener("hashchange", () => show());
addEventListener("keydown", press);
addEventListener("beforeunload", (event) => view?.changed && event.preventDefault());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address belongs to the views
  main.focus();
});
show(false);
store.start();
