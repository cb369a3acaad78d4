// Requests to the exit. The cookie and the code of the session together log in.

const CODE = "htvpn-code";

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export function isLoggedIn() {
  return localStorage.getItem(CODE) !== null;
}

export function forget() {
  localStorage.removeItem(CODE);
}

async function send(method, path, content, options = {}) {
  const headers = { "X-Htvpn-Code": localStorage.getItem(CODE) ?? "" };
  if (content !== undefined) headers["Content-Type"] = "application/json";
  const body = content === undefined ? undefined : JSON.stringify(content);
  let answer;
  try {
    answer = await fetch(`api/${path}`, { method, headers, body, credentials: "same-origin", ...options });
  } catch {
    throw new Refused(0, "The exit does not answer. It may have stopped, or the ssh connection has ended.");
  }
  if (answer.ok) return answer;
  let sentence = `the exit answers with status ${answer.status}`;
  try {
    sentence = (await answer.json()).error;
  } catch {
    // no JSON: the status has to do
  }
  throw new Refused(answer.status, sentence);
}

export async function get(path) {
  return (await send("GET", path)).json();
}

export async function post(path, content) {
  return (await send("POST", path, content)).json();
}

export async function logIn(token) {
  localStorage.setItem(CODE, (await post("login", { token })).code);
}

export async function logOut() {
  try {
    await post("logout", {});
  } finally {
    forget();
  }
}

// Server-sent events, read by fetch: an EventSource cannot send the code. Returns when the stream ends.
export async function listen(handle, signal) {
  const answer = await send("GET", "events", undefined, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
      if (fields.event) handle(fields.event, JSON.parse(fields.data));
    }
  }
}
