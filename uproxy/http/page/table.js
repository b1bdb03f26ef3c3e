// The table of Service ports. Rows are kept by name, so that focus and selections survive.

import { amount, byteSize } from "./numbers.js";
import { ORDERS, portName } from "./model.js";
import { address, byId, element, name, pill, printable, sentence, write } from "./text.js";

/** Rows at a time: a browser lays out thousands of them only slowly, and people do not read them. */
export const PAGE = 100;

const COLUMNS = [
  { key: "state", title: "State", className: "stateColumn" },
  { key: "name", title: "Service port" },
  { title: "Frontend", className: "line medium" },
  { key: "backends", title: "Backends", className: "number narrow" },
  { key: "flows", title: "Flows/s", className: "number" },
  { key: "active", title: "Active", className: "number narrow" },
  { key: "in", title: "In/s", className: "number narrow" },
  { key: "out", title: "Out/s", className: "number narrow" },
  { key: "failures", title: "Fail/s", className: "number" },
  { key: "total", title: "Flows", className: "number wide" },
];

const rows = new Map();     // {row, detail} by the name of the port.

/** Makes the heads of the columns; `sort` is called with the key of the one that is clicked. */
export function makeHead(sort) {
  const head = element("tr");
  for (const { key, title, className } of COLUMNS) {
    const cell = element("th", undefined, className);
    cell.scope = "col";
    if (key) {
      const button = element("button", title);
      button.type = "button";
      button.addEventListener("click", () => sort(key));
      cell.dataset.key = key;
      cell.append(button);
    } else {
      write(cell, title);
    }
    head.append(cell);
  }
  byId("ports").tHead.append(head);
}

/** Says by which column the table is sorted, for eyes and for screen readers. */
export function showOrder(order) {
  const key = order.replace("-", "");
  const { title, number } = ORDERS[key];
  const descending = Boolean(number) !== order.startsWith("-");
  for (const cell of byId("ports").tHead.rows[0].cells) {
    if (cell.dataset.key === key) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
  write(byId("caption"), `Service ports by ${title}${order.startsWith("-") ? ", reversed" : ""}`);
}

/** Shows these ports and no others, in this order. `toggle` opens and closes the row of a port. */
export function showRows(ports, isOpen, toggle) {
  const wanted = ports.flatMap((port) => {
    const entry = rowOf(port, toggle);
    fill(entry, port, isOpen(port));
    return isOpen(port) ? [entry.row, entry.detail] : [entry.row];
  });
  place(byId("ports").tBodies[0], wanted);
  const shown = new Set(ports.map(portName));
  for (const key of rows.keys()) if (!shown.has(key)) rows.delete(key);
}

/** The place for the details of an open port; undefined: it is not shown. */
export function detailOf(port) {
  return rows.get(portName(port))?.detail.querySelector(".fit");
}

/** Brings children into an order. A node that moves would lose the focus, so that is given back. */
function place(parent, wanted) {
  const focused = document.activeElement;
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function rowOf(port, toggle) {
  const key = portName(port);
  if (!rows.has(key)) rows.set(key, newRow(port, toggle));
  const entry = rows.get(key);
  entry.port = port;
  return entry;
}

let made = 0;

function newRow(port, toggle) {
  const entry = { port, row: element("tr", undefined, "port"), detail: element("tr", undefined, "detail") };
  for (const { className } of COLUMNS) entry.row.append(element("td", undefined, className));
  const open = element("button", undefined, "open");
  open.append(...name(portName(port)));
  open.setAttribute("aria-label", open.textContent);
  open.type = "button";
  open.addEventListener("click", () => toggle(entry.port));
  const state = element("span", undefined, "inline-state");
  entry.row.cells[1].append(open, " ", state, element("div", "", "reason"));
  const cell = element("td");
  cell.colSpan = COLUMNS.length;
  cell.append(element("div", undefined, "fit"));
  entry.detail.append(cell);
  made += 1;
  entry.detail.id = `detail-${made}`;
  open.setAttribute("aria-controls", entry.detail.id);
  return entry;
}

function fill({ row, detail }, port, open) {
  const [state, title, frontend, ...numbers] = row.cells;
  showPill(state, port.state);
  showPill(title.querySelector(".inline-state"), port.state);
  const button = title.querySelector("button");
  button.setAttribute("aria-expanded", String(open));
  detail.hidden = !open;
  showReason(title.querySelector(".reason"), reason(port));
  showFrontend(frontend, port);
  const { rates } = port;
  const shown = [
    backends(port), rates && amount(rates.flows), amount(port.activeFlows),
    rates && byteSize(rates.clientBytes), rates && byteSize(rates.backendBytes),
    rates && amount(rates.failures), amount(port.flows),
  ];
  shown.forEach((value, index) => write(numbers[index], value ?? "–"));
  for (const cell of numbers) cell.classList.toggle("nothing", /^0( B)?$|^–$/.test(cell.textContent));
  numbers[5].classList.toggle("trouble", Boolean(rates) && rates.failures > 0);
}

function showPill(cell, state) {
  if (cell.textContent !== state) cell.replaceChildren(pill(state));
}

function showReason(place, text) {
  if (place.textContent !== printable(text)) place.replaceChildren(...sentence(text));
}

function reason(port) {
  if (!port.reason) return "";
  const some = port.concerned < port.frontends.length;
  return `${some ? `${port.concerned} of ${port.frontends.length} frontends: ` : ""}${port.reason}`;
}

function backends(port) {
  const all = port.backends.length;
  return port.failing ? `${all - port.failing} of ${all}` : String(all);
}

function showFrontend(cell, port) {
  const [first] = port.frontends;
  const more = port.frontends.length - 1;
  const text = `${printable(first)}${more ? ` +${more}` : ""}`;
  if (cell.textContent === text) return;
  cell.replaceChildren(address(first));
  if (more) cell.append(element("span", ` +${more}`, "more"));
}
