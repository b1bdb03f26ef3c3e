// What is below an open row: the frontends of a Service port, and its pods.

import { amount, byteSize, clock, counted } from "./numbers.js";
import { address, element, pill, sentence } from "./text.js";
import { portName } from "./model.js";

/**
 * A small table; each column is [title, className, what is in a cell, a limit]. Empty columns are
 * left out. Up to the limit of characters a cell is not broken in favour of other columns.
 */
function table(title, all, rows) {
  const columns = all.filter(([, , content]) => rows.some((each) => content(each) !== ""));
  const made = element("table");
  made.setAttribute("aria-label", title);
  // Where rows are shown as blocks, this is still a table for screen readers.
  made.setAttribute("role", "table");
  const head = element("thead");
  const body = element("tbody");
  head.setAttribute("role", "rowgroup");
  body.setAttribute("role", "rowgroup");
  head.append(row(columns, "columnheader", ([name, className]) => {
    const cell = element("th", name, className);
    cell.scope = "col";
    return cell;
  }));
  body.append(...rows.map((each) => row(columns, "cell", ([name, className, content, limit]) => {
    const cell = element("td", undefined, className);
    const inside = content(each);
    if (inside !== "") cell.append(inside);
    if (limit) cell.style.minWidth = `${Math.min(limit, cell.textContent.length + 2)}ch`;
    if (className === "number") cell.dataset.label = name;
    return cell;
  })));
  made.append(head, body);
  return made;
}

function row(columns, role, cell) {
  const made = element("tr");
  made.setAttribute("role", "row");
  for (const column of columns) {
    const inside = cell(column);
    inside.setAttribute("role", role);
    made.append(inside);
  }
  return made;
}

function text(content, className) {
  if (content === "") return "";
  const made = element("span", undefined, className);
  made.append(...sentence(content));
  return made;
}

/** The reason of this state is that attempts have failed, which has a column of its own. */
const SET_ASIDE = "set aside";

const FRONTENDS = [
  ["Frontend", "", (each) => address(each.frontend)],
  ["Kind", "", (each) => text(each.kind)],
  ["State", "", (each) => pill(each.state)],
  ["Reason", "name", (each) => text(each.reason, "soft")],
];

/** "2 ECONNREFUSED, 1 ETIMEDOUT, last at 12:34:56". */
function failures(backend) {
  const counts = Object.entries(backend.failures).map(([name, count]) => `${amount(count)} ${name}`);
  if (backend.lastErrorAt) counts.push(`last at ${clock(Date.parse(backend.lastErrorAt) / 1000)}`);
  return counts.join(", ");
}

/** Within which half of the attempts have succeeded, and 99 % of them. */
function connectTimes(backend) {
  if (backend.connectP50 === null) return "";
  return `${amount(backend.connectP50 * 1000)} / ${amount(backend.connectP99 * 1000)} ms`;
}

function state(backend) {
  const made = element("span");
  made.append(pill(backend.state, backend.state.replaceAll(" ", "-")));
  if (backend.asideUntil) made.append(` until ${clock(Date.parse(backend.asideUntil) / 1000)}`);
  return made;
}

const PODS = [
  ["Pod", "name", (each) => text(each.pod), 22],
  ["Address", "", (each) => address(each.address)],
  ["Node", "name", (each) => text([each.node, each.zone].filter(Boolean).join(", ")), 14],
  ["State", "line", state],
  ["Flows", "number", (each) => text(amount(each.flows))],
  ["Active", "number", (each) => text(amount(each.activeFlows))],
  ["In", "number", (each) => text(byteSize(each.clientBytes))],
  ["Out", "number", (each) => text(byteSize(each.backendBytes))],
  ["Retries", "number", (each) => text(each.retries ? amount(each.retries) : "")],
  ["Connect", "number", (each) => text(connectTimes(each))],
  ["Failed", "name", (each) => text(failures(each), "trouble"), 19],
  ["Reason", "name", (each) => text(each.state === SET_ASIDE ? "" : each.reason, "soft")],
];

const ADDRESSES = [
  ["Backend", "", (each) => address(each.address)],
  ["", "", (each) => text(each.note, "soft")],
];

/** Of an answer without pods: the addresses that the frontends have. */
function backends(frontends) {
  const local = new Set(frontends.flatMap((each) => each.localBackends ?? []));
  const failing = new Set(frontends.flatMap((each) => each.failing));
  const all = new Set(frontends.flatMap((each) => each.backends).concat([...local]));
  return [...all].map((one) => ({
    address: one,
    note: [local.has(one) ? "for clients from outside" : "", failing.has(one) ? "does not answer" : ""]
      .filter(Boolean).join(", "),
  }));
}

function facts(port, frontends) {
  const [first] = frontends;
  const shown = element("p", undefined, "facts");
  const found = [
    ["since the start", `${counted(port.flows, "flow")}, ${byteSize(port.clientBytes)} in, ` +
      `${byteSize(port.backendBytes)} out, ${counted(port.failures, "failure")}`],
    ["balancer", first?.balancer],
    ["session affinity", first?.sessionAffinity ? `${first.sessionAffinity.timeoutSeconds} s` : ""],
    ["PROXY protocol", first?.proxyProtocol ?? ""],
    ["clients' addresses", port.masqueradeReason],
  ];
  for (const [name, value] of found) {
    if (!value) continue;
    const fact = element("span", `${name} `);
    fact.append(element("b", value));
    shown.append(fact);
  }
  return shown;
}

/** Everything about a port, from the answer of /api/v1/routes for its Service. */
export function details(port, answer) {
  const name = portName(port);
  const mine = (each) => portName({ service: each.service, port: each.servicePort, protocol: each.protocol }) === name;
  const frontends = answer.frontends.filter(mine);
  const pods = (answer.ports ?? []).filter(mine).flatMap((each) => each.backends);
  const parts = [facts(port, frontends), table(`Frontends of ${name}`, FRONTENDS, frontends)];
  if (pods.length) parts.push(table(`Pods of ${name}`, PODS, pods));
  else if (port.backends.length) parts.push(table(`Backends of ${name}`, ADDRESSES, backends(frontends)));
  return parts;
}

/** Tables that are too wide for their place show each row as a block: on phones most of them do. */
export function fit(place) {
  for (const each of place.querySelectorAll("table")) {
    each.classList.remove("blocks");
    each.classList.toggle("blocks", each.offsetWidth > place.clientWidth);
  }
}

/** The query for what `details` needs. */
export function detailsUrl(port) {
  const [namespace, service] = port.service.split("/");
  return `api/v1/routes?${new URLSearchParams({ namespace, service, backends: "1" })}`;
}
