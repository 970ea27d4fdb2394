/** The API: JSON in and out, and its errors as it words them. */

/** What went wrong: `status` is 0 where nobody answered. */
export class ApiError extends Error {
  constructor(status, code, text, hint = "") {
    super(text);
    Object.assign(this, { status, code, hint });
  }
}

/** Tells the page (event `denied`) that the server wants a token. */
export const rights = new EventTarget();

export const get = (path, signal) => ask(path, { signal });
export const post = (path, body = {}, signal) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });

/** An address of this server, also where a proxy has it in a folder. */
export const address = (path) => new URL(path, document.baseURI.split("#")[0]);

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(address(path), { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "edgeinfer does not answer", "is it still running?");
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok) return content;
  if (answer.status === 401 && path !== "login") rights.dispatchEvent(new Event("denied"));
  const { code = `http-${answer.status}`, text = `the server answered ${answer.status}`, hint = "" } = content?.error ?? {};
  throw new ApiError(answer.status, code, text, hint);
}

/** An error in one line, with what helps. */
export const sentence = (error) => (error.hint ? `${error.message}: ${error.hint}` : error.message);
