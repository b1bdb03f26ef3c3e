// The tiles at the top: what all Service ports do together, now and in the last five minutes.

import { amount, byteSize, counted } from "./numbers.js";
import { byId, element, write } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const SPAN = 300;       // Seconds.
const WIDTH = 300;
const HEIGHT = 32;

const TRAFFIC = [
  { id: "flows", title: "Flows", unit: "/s", value: (each) => each.flows, write: amount },
  { id: "active", title: "Active flows", unit: "", value: (each) => each.activeFlows, write: amount },
  { id: "in", title: "In, from clients", unit: "/s", value: (each) => each.clientBytes, write: byteSize },
  { id: "out", title: "Out, to clients", unit: "/s", value: (each) => each.backendBytes, write: byteSize },
  { id: "failures", title: "Failures", unit: "/s", value: (each) => each.failures, write: amount },
];

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** The points of a line: the newest sample is at the right edge, five minutes are the width. */
function points(samples, value, highest) {
  const end = samples[samples.length - 1].time;
  return samples.map((each) => {
    const x = WIDTH * (1 - (end - each.time) / SPAN);
    const y = HEIGHT - 1 - (HEIGHT - 2) * value(each) / highest;
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
}

function sparkline(samples, value, highest) {
  const image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (samples.length > 1) {
    const line = points(samples, value, highest || 1);
    const [first, last] = [line[0].split(",")[0], line[line.length - 1].split(",")[0]];
    image.append(
      svg("polygon", { class: "area", points: `${first},${HEIGHT} ${line.join(" ")} ${last},${HEIGHT}` }),
      svg("polyline", { class: "line", points: line.join(" ") }),
    );
  }
  return image;
}

function newTile(id, title) {
  const tile = element("div", undefined, "tile");
  tile.id = `tile-${id}`;
  tile.append(element("h3", title), element("p", "–", "value"), element("p", "", "more"));
  return tile;
}

function tileOf(id, title) {
  const tile = byId(`tile-${id}`) ?? newTile(id, title);
  if (!tile.parentNode) byId("tiles").append(tile);
  return tile;
}

/** Traffic, from the samples that there are. */
export function showTraffic(samples) {
  const latest = samples[samples.length - 1];
  for (const { id, title, unit, value, write: text } of TRAFFIC) {
    const tile = tileOf(id, title);
    const highest = samples.reduce((most, each) => Math.max(most, value(each)), 0);
    const [digits, ...rest] = latest ? text(value(latest)).split(" ") : ["–"];
    const shown = tile.querySelector(".value");
    shown.replaceChildren(element("span", digits), element("span", ` ${rest.join("")}${unit}`.trimEnd(), "unit"));
    write(tile.querySelector(".more"), latest ? `peak ${text(highest)}${unit}` : "no sample yet");
    tile.classList.toggle("bad", id === "failures" && Boolean(latest) && value(latest) > 0);
    tile.querySelector("svg")?.remove();
    shown.after(sparkline(samples, value, highest));
  }
}

/** How they relay: "io_uring", or "io_uring, epoll"; "…" as long as no worker has started. */
function engines(workers) {
  return [...new Set(workers.map((each) => each.engine).filter(Boolean))].join(", ") || "…";
}

export function showWorkers(workers) {
  const tile = tileOf("workers", "Workers");
  const running = workers.filter((each) => each.engine && !each.reason).length;
  const restarts = workers.reduce((sum, each) => sum + each.restarts, 0);
  const shown = tile.querySelector(".value");
  shown.replaceChildren(
    element("span", running === workers.length ? String(running) : `${running} of ${workers.length}`),
    element("span", ` by ${engines(workers)}`, "unit"));
  write(tile.querySelector(".more"), counted(restarts, "restart"));
  tile.classList.toggle("bad", running < workers.length);
}
