/** What is asked and told in a window of its own: the token, the keys, whether to go on. Escape closes all of them. */
import { post, sentence } from "./api.js";
import { el, say } from "./dom.js";

const KEYS = [
  ["1 – 5", "cameras, plots, model, events, configuration"],
  ["← ↑ → ↓", "from camera to camera; in a large one, the one before or after"],
  ["Enter", "opens the camera"],
  ["Escape", "back to all cameras; closes a window"],
  ["t", "theme: as the system, light, dark"],
  ["/", "filter of events"],
  ["?", "these keys"],
];

const open = new Map();
/** Called after a login has gone well. */
export const signedIn = new EventTarget();

/** A dialog that is there once at most; returns it, shown. */
function dialog(key, make) {
  if (open.has(key)) return open.get(key);
  const opener = document.activeElement;
  const node = make();
  node.addEventListener("close", () => {
    open.delete(key);
    node.remove();
    opener?.focus?.();
  });
  open.set(key, node);
  document.body.append(node);
  node.showModal();
  return node;
}

const frame = (label, ...content) => el("dialog", { "aria-label": label }, content);
const closer = (text) => el("button", { type: "button", onclick: ({ target }) => target.closest("dialog").close() }, text);

/** The list of keys. */
export const help = () =>
  dialog("help", () => frame("Keys", el("h2", "Keys"), el("dl.facts.keys", KEYS.map(([key, what]) => [el("dt", el("kbd", key)), el("dd", what)])), el("p.actions", closer("Close"))));

/** Asks for a token; `why` says what for. */
export function signIn(why = "") {
  return dialog("login", () => {
    const token = el("input", { type: "password", name: "token", required: true, autocomplete: "current-password", id: "token", "aria-describedby": "login-error" });
    const wrong = el("p.wrong", { role: "alert", id: "login-error", "data-login-error": true });
    const send = el("button.primary", { type: "submit" }, "Sign in");
    const form = el("form", { "data-login": true, onsubmit: (event) => { event.preventDefault(); submit(form, token, wrong, send); } },
      el("h2", "Sign in"), el("p", why || "This page needs a token."),
      el("label", { for: "token" }, "Token"), token, wrong,
      el("p.quiet", "One is made by ", el("code", "edgeinfer web token new"), "."),
      el("p.actions", send, closer("Cancel")));
    return frame("Sign in", form);
  });
}

async function submit(form, token, wrong, send) {
  send.disabled = true;
  say(wrong, "");
  try {
    await post("login", { token: token.value.trim() });
    form.closest("dialog").close();
    signedIn.dispatchEvent(new Event("done"));
  } catch (error) {
    say(wrong, sentence(error));
    token.select();
  } finally {
    send.disabled = false;
  }
}

/** Whether to go on; resolves to true or false. */
export function confirmed(question, what, changes) {
  return new Promise((resolve) => {
    let yes = false;
    const go = el("button.primary", { "data-confirm": true, onclick: ({ target }) => { yes = true; target.closest("dialog").close(); } }, "Reload");
    const node = dialog("confirm", () => frame(question, el("h2", question), el("p", what), changes.length ? el("ul.changes", changes.map((change) => el("li", change))) : null, el("p.actions", go, closer("Cancel"))));
    node.addEventListener("close", () => resolve(yes));
  });
}
