// The dialogs: an invitation, the terms of a client, and the question before a client is cut off.

import { post } from "./exit.js";
import { clients } from "./clients.js";
import { draw } from "./graph.js";
import { moment, quotaValue, rateValue, stateOf, termsOf } from "./text.js";

const at = (id) => document.getElementById(id);
let shown = null; // the client in the dialog

for (const button of document.querySelectorAll("dialog [data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}

// Runs an action of `button` once at a time. What the exit refuses is shown in `problem`.
async function act(button, problem, action) {
  problem.textContent = "";
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    problem.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

export function openInvitation() {
  at("invite-form").reset();
  at("invite-problem").textContent = "";
  at("invite-form").hidden = false;
  at("invite-made").hidden = true;
  at("invite-dialog").showModal();
}

at("invite-dialog").addEventListener("close", () => {
  at("invite-link").value = ""; // a secret
  at("invite-code").replaceChildren();
});

at("invite-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = { name: at("invite-name").value.trim(), expires: at("invite-expires").value };
  act(event.submitter, at("invite-problem"), async () => {
    const made = await post("invitations", asked);
    if (!at("invite-dialog").open) return; // closed meanwhile, and a secret stays in no hidden field
    const code = new DOMParser().parseFromString(made.code, "image/svg+xml").documentElement;
    code.setAttribute("role", "img");
    code.setAttribute("aria-label", `QR code of the link for ${made.name}`);
    at("invite-code").replaceChildren(document.importNode(code, true));
    at("invite-link").value = made.link;
    at("invite-note").textContent = `The link for ${made.name} is good until ${moment(made.expires)}, once.`;
    at("invite-form").hidden = true;
    at("invite-made").hidden = false;
    at("invite-copy").focus();
  });
});

at("invite-copy").addEventListener("click", async () => {
  at("invite-link").select();
  try {
    await navigator.clipboard.writeText(at("invite-link").value);
    at("invite-note").textContent = "The link is copied.";
  } catch {
    at("invite-note").textContent = "The browser does not allow it; the link is selected, so copy it by hand.";
  }
});

export function openClient(name) {
  const row = clients.get(name);
  if (row === undefined) return;
  shown = name;
  at("client-title").textContent = name;
  at("terms-expires").value = row.expires ?? "";
  at("terms-quota").value = quotaValue(row.quota);
  at("terms-rate").value = rateValue(row.rate);
  at("terms-problem").textContent = at("terms-saved").textContent = "";
  at("client-graph").replaceChildren();
  refreshClient();
  at("client-dialog").showModal();
  redraw();
}

// Shows what has changed of the client in the dialog, except in fields that are being edited.
export function refreshClient() {
  const row = clients.get(shown);
  if (row === undefined) {
    if (shown !== null) at("client-dialog").close();
    return;
  }
  const state = stateOf(row);
  at("client-state").textContent = `${state.text}, ${row.legs} legs, ${row.streams} streams, ${termsOf(row)}`;
  at("client-switch").textContent = row.refused === "disabled" ? "Enable" : "Disable";
}

export function redraw() {
  if (shown !== null) draw(at("client-graph"), shown).catch(() => {});
}

at("client-dialog").addEventListener("close", () => {
  shown = null;
});

at("terms-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const terms = {};
  for (const key of ["expires", "quota", "rate"]) terms[key] = at(`terms-${key}`).value.trim() || null;
  const name = shown;
  act(event.submitter, at("terms-problem"), async () => {
    at("terms-saved").textContent = "";
    keep(await post(`clients/${encodeURIComponent(name)}`, terms));
    if (shown === name) at("terms-saved").textContent = "The terms are saved.";
  });
});

at("client-switch").addEventListener("click", (event) => {
  if (clients.get(shown)?.refused === "disabled") {
    act(event.target, at("terms-problem"), async () => {
      keep(await post(`clients/${encodeURIComponent(shown)}`, { disabled: false }));
    });
    return;
  }
  at("confirm-text").textContent =
    `${shown} loses its connection at once, and cannot connect until you enable it. Its key and terms stay.`;
  at("confirm-problem").textContent = "";
  at("confirm-yes").textContent = `Disable ${shown}`;
  at("confirm-dialog").showModal();
});

at("confirm-yes").addEventListener("click", (event) => {
  act(event.target, at("confirm-problem"), async () => {
    keep(await post(`clients/${encodeURIComponent(shown)}`, { disabled: true }));
    at("confirm-dialog").close();
  });
});

// The answer to a change is the row as it is now; the feed brings the same a moment later.
function keep(row) {
  clients.set(row.name, row);
  refreshClient();
}
