// The rows of the clients. A row changes in place, so that focus and selection stay.

import { amount, moment, rate, stateOf, termsOf } from "./text.js";

export const clients = new Map();

const rows = document.getElementById("rows");
const COLUMNS = ["Client", "State", "Since", "Legs", "Sends", "Receives", "Today", "This month", "Terms"];

export function setAll(found, open) {
  clients.clear();
  for (const row of found) clients.set(row.name, row);
  for (const element of [...rows.children]) if (!clients.has(element.dataset.client)) element.remove();
  for (const row of found) show(row, open);
  note();
}

export function change(changed, gone, open) {
  for (const name of gone) {
    clients.delete(name);
    find(name)?.remove();
  }
  for (const row of changed) {
    clients.set(row.name, row);
    show(row, open);
  }
  note();
}

function note() {
  document.getElementById("no-clients").hidden = clients.size > 0;
  document.getElementById("clients").hidden = clients.size === 0;
}

function find(name) {
  return [...rows.children].find((element) => element.dataset.client === name);
}

function show(row, open) {
  const element = find(row.name) ?? insert(row.name, open);
  const state = stateOf(row);
  const values = [
    state.text,
    row.online ? moment(row.since) : row.last_seen === null ? "never seen" : `last seen ${moment(row.last_seen)}`,
    String(row.legs),
    rate(row.sent_rate),
    rate(row.received_rate),
    both(row.today),
    both(row.month),
    termsOf(row),
  ];
  values.forEach((value, index) => {
    const cell = element.children[index + 1].lastElementChild;
    if (cell.textContent !== value) cell.textContent = value;
  });
  element.children[1].lastElementChild.className = `state ${state.kind}`;
}

function both([sent, received]) {
  return amount(sent + received);
}

function insert(name, open) {
  const element = document.createElement("div");
  element.setAttribute("role", "row");
  element.dataset.client = name;
  COLUMNS.forEach((column, index) => {
    const cell = document.createElement("div");
    cell.setAttribute("role", "cell");
    if (index === 0) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "link";
      button.textContent = name;
      button.addEventListener("click", () => open(name));
      cell.append(button);
    } else {
      const label = document.createElement("span");
      label.className = "label";
      label.setAttribute("aria-hidden", "true");
      label.textContent = column;
      cell.append(label, document.createElement("span"));
    }
    element.append(cell);
  });
  const after = [...rows.children].find((other) => other.dataset.client > name);
  rows.insertBefore(element, after ?? null);
  return element;
}
