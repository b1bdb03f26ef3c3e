// The page: asks for the state of the program every 2 s, and shows it.

import { clock, duration } from "./numbers.js";
import { details, detailsUrl, fit } from "./detail.js";
import { ORDERS, Rates, chosen, isOrder, isState, portName, sorted } from "./model.js";
import { ask, repeat, trouble } from "./polling.js";
import { makeSections, showEvents, showFlows, showSummary } from "./sections.js";
import { PAGE, detailOf, makeHead, showOrder, showRows } from "./table.js";
import { byId, element, sentence, write } from "./text.js";
import { showTraffic, showWorkers } from "./tiles.js";

const SPAN = 300;           // Seconds of samples.
const FLOWS = 100;          // Bad flows that are kept; many are alike.
const FLOWS_EVERY = 3;      // Rounds: every worker is asked for them.

const rates = new Rates();
const open = new Set();     // Names of ports whose details are shown.
let ports = [];
let summary = null;
let samples = [];
const flows = { all: [], cursor: "", asked: false };
let rounds = 0;
let updated = 0;            // When the server answered last, in the milliseconds of performance.now().
let lost = 0;               // When it first did not, in Unix seconds; 0: it does.
let view = readView();
let page = 1;               // The one that is shown: the URL may ask for more pages than there are.

// --- What to show is in the URL, so that it can be bookmarked and sent to others. ---

function readView() {
  const query = new URLSearchParams(location.search);
  const order = query.get("sort") ?? "state";
  return {
    words: query.get("filter") ?? "",
    state: isState(query.get("state")) ? query.get("state") : "",
    order: isOrder(order) ? order : "state",
    page: Math.max(1, Number.parseInt(query.get("page") ?? "1", 10) || 1),
  };
}

function writeView() {
  const query = new URLSearchParams();
  if (view.words) query.set("filter", view.words);
  if (view.state) query.set("state", view.state);
  if (view.order !== "state") query.set("sort", view.order);
  if (view.page > 1) query.set("page", view.page);
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

function change(part) {
  view = { ...view, page: 1, ...part };
  writeView();
  showControls();
  showPorts();
}

function showControls() {
  if (byId("text").value !== view.words) byId("text").value = view.words;
  byId("state").value = view.state;
  byId("sort").value = view.order.replace("-", "");
  showOrder(view.order);
}

/** A click on a column that the table is sorted by already turns the order round. */
function sortBy(key) {
  change({ order: view.order === key ? `-${key}` : key });
}

// --- The table. ---

function showPorts() {
  const found = sorted(chosen(ports, view), view.order);
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(view.page, pages);
  const first = (page - 1) * PAGE;
  const shown = found.slice(first, first + PAGE);
  showRows(shown, (port) => open.has(portName(port)), toggle);
  const all = ports.length.toLocaleString("en");
  write(byId("count"), found.length === ports.length ? all
    : `${found.length.toLocaleString("en")} of ${all}`);
  byId("pager").hidden = pages === 1;
  byId("previous").disabled = page === 1;
  byId("next").disabled = page === pages;
  write(byId("range"), `${(first + 1).toLocaleString("en")} to ` +
    `${(first + shown.length).toLocaleString("en")} of ${found.length.toLocaleString("en")}`);
  return shown;
}

function turnPage(step) {
  change({ page: page + step });
  byId("ports-title").scrollIntoView();
}

function toggle(port) {
  const name = portName(port);
  if (!open.delete(name)) {
    open.add(name);
    showDetails(port).catch(() => {});
  }
  showPorts();
}

async function showDetails(port) {
  const { content, changed } = await ask(detailsUrl(port));
  const place = detailOf(port);
  if (!place || (!changed && place.childElementCount)) return;
  const parts = details(port, content);
  const before = [...place.children].map((part) => part.textContent).join("\n");
  if (before === parts.map((part) => part.textContent).join("\n")) return;
  place.replaceChildren(...parts);
  fit(place);
}

// --- What the server says. ---

function showState() {
  const ready = summary.notReady.length === 0 && summary.notHealthy.length === 0;
  byId("ready").hidden = false;
  byId("ready").className = `pill ${ready ? "ready" : "unready"}`;
  write(byId("ready"), ready ? "ready" : summary.notReady.length ? "not ready" : "not healthy");
  write(byId("node"), `node ${summary.node || "unnamed"}, ` +
    `${summary.synced ? "in sync" : "not yet in sync"}`);
  document.title = `${summary.node || "uproxy"}${ready ? "" : " (not ready)"} · uproxy`;
  const wrong = [["Not ready", summary.notReady], ["Not healthy", summary.notHealthy], ["Notes", summary.notes]]
    .filter(([, reasons]) => reasons.length)
    .flatMap(([title, reasons]) => [
      element("h3", title), ...reasons.slice(0, 20).map(paragraph),
      ...(reasons.length > 20 ? [element("p", `and ${reasons.length - 20} more`)] : []),
    ]);
  byId("notes").hidden = wrong.length === 0;
  const before = byId("notes").textContent;
  if (before !== wrong.map((each) => each.textContent).join("")) byId("notes").replaceChildren(...wrong);
}

function paragraph(text) {
  const made = element("p");
  made.append(...sentence(text));
  return made;
}

function showAge() {
  if (!updated) return;
  const age = (performance.now() - updated) / 1000;
  const uptime = Date.now() / 1000 - summary.started;
  write(byId("updated"),
    `${summary.version} · up ${duration(uptime)} · updated ${duration(age)} ago`);
}

async function askHistory() {
  const after = samples.length ? samples[samples.length - 1].time : 0;
  const { content } = await ask(`api/v1/history?after=${after}`);
  // A clock that was set back gives new samples times that older ones have.
  const begin = content.samples[0]?.time ?? Infinity;
  samples = [...samples.filter((each) => each.time < begin), ...content.samples];
  const end = samples.length ? samples[samples.length - 1].time : 0;
  samples = samples.filter((each) => each.time > end - SPAN);
  showTraffic(samples);
  showEvents(content.events);
}

async function askFlows() {
  const query = new URLSearchParams({ bad: "true", limit: FLOWS, after: flows.cursor });
  const { content } = await ask(`api/v1/flows?${query}`);
  flows.all = [...content.flows.reverse(), ...flows.all].slice(0, FLOWS);
  flows.cursor = content.cursor;
  showFlows(flows.all);
}

/** Nothing waits for flows: a worker that hangs would keep the whole page waiting. */
function askForFlows() {
  if (flows.asked) return;
  flows.asked = true;
  askFlows().catch(() => {}).finally(() => { flows.asked = false; });
}

async function askSummary() {
  const { content } = await ask("api/v1/summary");
  // These files belong to the version that was there before.
  if (summary && summary.version !== content.version) location.reload();
  summary = content;
  ports = content.ports;
  rates.add(ports, performance.now() / 1000);
  showState();
  showWorkers(summary.workers);
  showSummary(summary);
  const shown = showPorts();
  for (const port of shown) if (open.has(portName(port))) await showDetails(port);
}

async function round() {
  try {
    await askHistory();
    await askSummary();
    updated = performance.now();
    if (rounds % FLOWS_EVERY === 0) askForFlows();
    rounds += 1;
    lost = 0;
  } catch (error) {
    lost ||= Date.now() / 1000;
    write(byId("gone"), trouble(error, clock(lost)));
  }
  byId("gone").hidden = !lost;
  document.body.classList.toggle("gone", Boolean(lost));
  showAge();
}

// --- People. ---

function isTyping(target) {
  return target.closest("input, select, textarea") !== null;
}

function listen() {
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("input", () => change({ words: byId("text").value }));
  byId("state").addEventListener("change", () => change({ state: byId("state").value }));
  byId("sort").addEventListener("change", () => change({ order: byId("sort").value }));
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !isTyping(event.target) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      byId("text").select();
      byId("text").focus();
    } else if (event.key === "Escape" && event.target === byId("text")) {
      change({ words: "" });
      byId("text").blur();
    }
  });
  addEventListener("resize", () => document.querySelectorAll(".detail .fit").forEach(fit));
  addEventListener("popstate", () => { view = readView(); showControls(); showPorts(); });
}

function start() {
  makeHead(sortBy);
  makeSections();
  for (const [key, { title }] of Object.entries(ORDERS)) {
    const option = element("option", title);
    option.value = key;
    byId("sort").append(option);
  }
  showControls();
  listen();
  setInterval(showAge, 1000);
  repeat(round);
}

start();
