// The lists below the table: Events, bad flows, load balancers, workers, and what cannot be used.

import { amount, byteSize, clock, counted, duration } from "./numbers.js";
import { portName } from "./model.js";
import { address, byId, element, pill, sentence } from "./text.js";

/** Lines of a list: more would make the page slow, and nobody would read them. */
const MOST = 200;

const TITLES = {
  services: "Not served, or only in part",
  objects: "Objects that cannot be used",
  pending: "Load balancers: what needs attention",
  events: "Recent Events",
  flows: "Latest bad flows",
  addresses: "Addresses of load balancers",
  pools: "Pools of addresses",
  checks: "Health check ports",
  masqueraded: "Backends that do not see the client's address",
  apiServers: "API server",
  workers: "Workers",
};

/** Makes the empty sections, in the order of TITLES. */
export function makeSections() {
  for (const [id, title] of Object.entries(TITLES)) {
    const section = element("section");
    section.id = id;
    section.hidden = true;
    const heading = element("h2", title);
    heading.id = `${id}-title`;
    section.setAttribute("aria-labelledby", heading.id);
    section.append(heading, element("ul"));
    byId("sections").append(section);
  }
}

/** Shows items, each a text or a list of nodes. An empty section is not shown. */
function show(id, items) {
  const section = byId(id);
  section.hidden = items.length === 0;
  const lines = items.slice(0, MOST).map((item) => {
    const line = element("li");
    const parts = typeof item === "string" ? [item] : item;
    line.append(...parts.flatMap((part) => typeof part === "string" ? sentence(part) : [part]));
    return line;
  });
  if (items.length > MOST) lines.push(element("li", `and ${items.length - MOST} more`));
  const list = section.querySelector("ul");
  const before = [...list.children].map((line) => line.textContent).join("\n");
  if (before !== lines.map((line) => line.textContent).join("\n")) list.replaceChildren(...lines);
}

function time(seconds) {
  const made = element("time", clock(seconds));
  made.dateTime = new Date(seconds * 1000).toISOString();
  return made;
}

export function showEvents(events) {
  show("events", events.map((each) => [
    time(each.time), " ", pill(each.reason, each.type), " ", element("b", each.regarding),
    ` ${each.note}`,
  ]));
}

/** The newest comes first. Those that ended in the same way are one line. */
export function showFlows(flows) {
  const alike = new Map();
  for (const each of flows) {
    const key = [each.code, each.reason, each.service, each.servicePort, each.protocol, each.backend].join(" ");
    alike.set(key, [...(alike.get(key) ?? []), each]);
  }
  show("flows", [...alike.values()].map(([latest, ...rest]) => badFlow(latest, rest.length)));
}

function badFlow(flow, others) {
  const port = portName({ service: flow.service, port: flow.servicePort, protocol: flow.protocol });
  const parts = [
    time(Date.parse(flow.start) / 1000 + flow.duration), " ", pill(flow.code, "failed"), " ",
    element("b", port), " from ", address(flow.client),
  ];
  if (flow.backend) parts.push(` to ${flow.pod ?? ""} `, address(flow.backend));
  const how = [
    flow.reason.replaceAll("_", " "), counted(flow.attempts, "attempt"),
    `${byteSize(flow.clientBytes)} in`, `${byteSize(flow.backendBytes)} out`, seconds(flow.duration),
  ];
  parts.push(element("span", `: ${how.filter(Boolean).join(", ")}`, "soft"));
  if (others) parts.push(element("b", `; ${others} more like this`));
  return parts;
}

function seconds(value) {
  return value < 1 ? `${amount(value * 1000)} ms` : duration(value);
}

/** All that comes with the summary. */
export function showSummary(summary) {
  show("services", summary.services.map((each) => `${each.service}: ${each.reason}`));
  show("objects", summary.objects.map(
    (each) => `${each.where}: ${each.field ? `${each.field}: ` : ""}${each.reason}`));
  show("checks", summary.healthChecks.map(healthCheck));
  const balancer = summary.loadBalancer;
  show("pending", balancer ? pending(balancer) : []);
  show("addresses", balancer ? balancer.addresses.map(announced) : []);
  show("pools", balancer ? balancer.pools.map(pool) : []);
  show("masqueraded", masqueraded(summary.ports));
  show("apiServers", summary.apiServers.map((each) =>
    `${each.address}: ${each.inUse ? "in use" : each.reason || "in reserve"}; from ${each.origin}`));
  show("workers", summary.workers.map(worker));
}

function healthCheck(each) {
  const counts = Object.entries(each.counts).map(([family, n]) => `${family} ${n}`).join(", ");
  return `${each.service} port ${each.port}, local endpoints: ${counts}${each.reason ? ` (${each.reason})` : ""}`;
}

function pool(each) {
  const use = Object.entries(each.counts).map(([family, n]) =>
    `${family}: ${n.used} of ${n.total} used, ${n.free} free, ${n.reserved} reserved, ${n.drained} drained`);
  return [`${each.name}, from ${each.origin}`, ...use, each.reason].filter(Boolean).join("; ");
}

function announced(each) {
  const since = each.since === null ? "" : ` since ${new Date(each.since * 1000).toISOString()}`;
  const node = each.node ? `announced by ${each.node}${each.here ? " (this node)" : ""}${since}`
    : each.here ? "exported as a route by this node" : "";
  const other = each.conflict ? `${each.conflict} answers for it as well` : "";
  const rest = [each.services.join(", "), node, each.reason, other].filter(Boolean).join("; ");
  return [address(each.address), `: ${rest}`];
}

function pending(balancer) {
  return [
    ...(balancer.trouble ? [balancer.trouble] : []), ...balancer.notes,
    ...balancer.services.filter((each) => each.foreign || !each.addresses.length).map((each) =>
      `${each.service}: ${each.foreign ? `of another controller: ${each.foreign}` : each.reason}`),
  ];
}

/** Ports whose backends do not see every address that the Service asks for, by reason. */
function masqueraded(ports) {
  const names = new Map();
  for (const each of ports) {
    if (!each.masqueradeReason) continue;
    const name = each.port ? `${each.service}:${each.port}` : each.service;
    names.set(each.masqueradeReason, [...(names.get(each.masqueradeReason) ?? []), name]);
  }
  return [...names].map(([reason, all]) => {
    const more = all.length - 20;
    return `${reason}: ${all.slice(0, 20).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
  });
}

function worker(each) {
  return [
    `worker ${each.index}: process ${each.pid}, ${each.engine || "not started"}`,
    counted(each.activeFlows, "active flow"), counted(each.restarts, "restart"), each.reason,
  ].filter(Boolean).join(", ");
}
