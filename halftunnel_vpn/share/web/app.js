// The start of the page: log in, show the exit, and stay up to date.

import { change, setAll } from "./clients.js";
import { openClient, openInvitation, redraw, refreshClient } from "./dialogs.js";
import { Refused, forget, get, isLoggedIn, listen, logIn, logOut } from "./exit.js";
import { draw } from "./graph.js";
import { amount, duration } from "./text.js";

const at = (id) => document.getElementById(id);
const REDRAW = 10000; // milliseconds: one point of the graph
const REPORT = 30000;
const RETRY = 2000;

let reading = null; // the AbortController of the feed

function showLogin(problem) {
  reading?.abort();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  at("page").hidden = at("logout").hidden = true;
  at("login").hidden = false;
  at("connection").textContent = "";
  at("login-problem").textContent = problem;
  at("token").focus();
}

async function enter(token) {
  try {
    await logIn(token);
  } catch (error) {
    showLogin(error.message);
    return;
  }
  at("token").value = "";
  showPage();
}

function showPage() {
  at("login").hidden = true;
  at("page").hidden = at("logout").hidden = false;
  follow();
  report();
  graph();
}

// A session that is over leads back to the login. Other failures pass by themselves, or are shown by the feed.
function over(error) {
  if (error instanceof Refused && error.status === 401) {
    forget();
    showLogin(error.message);
    return true;
  }
  return false;
}

async function follow() {
  reading?.abort();
  const mine = (reading = new AbortController());
  while (!mine.signal.aborted) {
    let problem = "The exit has ended the connection.";
    try {
      await listen(handle, mine.signal);
    } catch (error) {
      if (mine.signal.aborted || over(error)) return;
      problem = error.message;
    }
    if (mine.signal.aborted) return;
    at("connection").textContent = `Not up to date: ${problem}`;
    await new Promise((resolve) => setTimeout(resolve, RETRY));
  }
}

function handle(event, content) {
  at("connection").textContent = "Live";
  if (event === "clients") setAll(content.clients, openClient);
  else change(content.clients, content.gone, openClient);
  refreshClient();
}

async function report() {
  if (at("page").hidden || document.hidden) return;
  let found;
  try {
    found = await get("status");
  } catch (error) {
    over(error);
    return;
  }
  const facts = {
    "Up for": duration(found.uptime),
    Clients: `${found.clients}, ${found.online} online`,
    Sessions: found.sessions,
    Legs: `${found.legs.upstream} up, ${found.legs.downstream} down`,
    Streams: found.streams,
    Memory: `${amount(found.memory[0])} of ${amount(found.memory[1])}`,
    Version: found.version,
  };
  at("overview").replaceChildren(
    ...Object.entries(facts).map(([name, value]) => {
      const pair = document.createElement("div");
      const term = document.createElement("dt");
      const detail = document.createElement("dd");
      term.textContent = name;
      detail.textContent = value;
      pair.append(term, detail);
      return pair;
    }),
  );
  at("problems").replaceChildren(
    ...found.problems.map((problem) => {
      const item = document.createElement("li");
      item.textContent = problem;
      return item;
    }),
  );
}

async function graph() {
  if (at("page").hidden || document.hidden) return;
  redraw();
  try {
    await draw(at("all-graph"), null);
  } catch (error) {
    over(error);
  }
}

at("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  // The whole address may be pasted as well.
  enter(at("token").value.trim().replace(/^.*#token=/, ""));
});
at("logout").addEventListener("click", async () => {
  reading?.abort();
  await logOut().catch(() => {});
  showLogin("");
});
at("invite").addEventListener("click", openInvitation);
document.addEventListener("visibilitychange", () => {
  report();
  graph();
});
setInterval(report, REPORT);
setInterval(graph, REDRAW);

function begin() {
  const token = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (token !== undefined) {
    history.replaceState(null, "", location.pathname); // not in the history of the browser
    enter(token);
  } else if (isLoggedIn()) showPage();
  else showLogin("");
}

// The address of `htvpn server web`, opened in a tab that shows this page already.
addEventListener("hashchange", begin);
begin();
