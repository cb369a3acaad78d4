// A graph of the rates of the last hour, as SVG.

import { get } from "./exit.js";
import { rate } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 720;
const HEIGHT = 140;

// Draws into `place` the rates of a client, of all together for null.
export async function draw(place, client) {
  const history = await get(client === null ? "history" : `history?client=${encodeURIComponent(client)}`);
  const peak = Math.max(1, ...history.sent, ...history.received);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const whose = client === null ? "all clients" : client;
  const now = (values) => rate(values[values.length - 1]);
  const most = (values) => rate(Math.max(...values));
  const words =
    `sent (solid): ${now(history.sent)} now, ${most(history.sent)} at most; ` +
    `received (dashed): ${now(history.received)} now, ${most(history.received)} at most.`;
  svg.setAttribute("aria-label", `Rates of ${whose} in the last hour. ${words}`);
  for (const name of ["sent", "received"]) {
    const points = history[name];
    const line = document.createElementNS(SVG, "polyline");
    const at = (value, index) =>
      `${((index / (points.length - 1)) * WIDTH).toFixed(1)},${(HEIGHT - 4 - (value / peak) * (HEIGHT - 12)).toFixed(1)}`;
    line.setAttribute("points", points.map(at).join(" "));
    line.setAttribute("class", name);
    svg.append(line);
  }
  const caption = document.createElement("p");
  caption.textContent = `Last hour: ${words}`;
  place.replaceChildren(svg, caption);
}
