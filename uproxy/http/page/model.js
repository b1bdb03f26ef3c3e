// What the table shows of the Service ports: rates, the filter, the order. Plain functions.

/** States of a port, the worst first. */
const URGENCY = ["failed", "conflict", "degraded", "paused", "pending", "elsewhere", "serving"];

const COUNTS = ["flows", "clientBytes", "backendBytes", "failures"];

/** Seconds over which rates are averaged: workers report once a second, and not at the same time. */
const WINDOW = 6;

/** The name of a port, as `uproxy top` writes it. */
export function portName(port) {
  return `${port.service}${port.port ? `:${port.port}` : ""}/${port.protocol}`;
}

/** Works out rates from the counts of successive summaries. */
export class Rates {
  #past = [];

  /** Adds `rates` to each port; null as long as there is nothing to compare with. */
  add(ports, seconds) {
    const counts = new Map(ports.map((port) => [portName(port), COUNTS.map((name) => port[name])]));
    // Of those that are older than the window, one is kept to compare with.
    while (this.#past.length > 1 && this.#past[1].seconds <= seconds - WINDOW) this.#past.shift();
    const [before] = this.#past;
    for (const port of ports) port.rates = before ? rates(before, counts, portName(port), seconds) : null;
    this.#past.push({ seconds, counts });
  }
}

function rates(before, counts, name, seconds) {
  const passed = Math.max(seconds - before.seconds, 0.001);
  const now = counts.get(name);
  const then = before.counts.get(name) ?? now;
  // A uproxy that was restarted counts from 0 again.
  return Object.fromEntries(COUNTS.map((key, index) => [key, Math.max(0, now[index] - then[index]) / passed]));
}

function rate(key) {
  return (port) => port.rates?.[key] ?? 0;
}

/** What ports can be sorted by; numbers are sorted with the largest first. */
export const ORDERS = {
  state: { title: "problems first", value: (port) => URGENCY.indexOf(port.state) },
  name: { title: "name", value: () => 0 },
  backends: { title: "backends", value: (port) => port.backends.length, number: true },
  flows: { title: "flows/s", value: rate("flows"), number: true },
  active: { title: "active flows", value: (port) => port.activeFlows, number: true },
  in: { title: "bytes in/s", value: rate("clientBytes"), number: true },
  out: { title: "bytes out/s", value: rate("backendBytes"), number: true },
  failures: { title: "failures/s", value: rate("failures"), number: true },
  total: { title: "flows since the start", value: (port) => port.flows, number: true },
};

/** Whether there is such an order; "-" before its name turns it round. */
export function isOrder(order) {
  return Object.hasOwn(ORDERS, order.replace("-", ""));
}

/** The ports in an order of ORDERS; "-" before its name turns it round. Equals: by name. */
export function sorted(ports, order) {
  const turned = order.startsWith("-");
  const { value, number } = ORDERS[order.replace("-", "")] ?? ORDERS.state;
  const sign = Boolean(number) === turned ? 1 : -1;
  const names = new Map(ports.map((port, index) => [port, index]));
  const byName = order === "-name" ? -1 : 1;
  return [...ports].sort((one, other) => sign * (value(one) - value(other)) ||
    byName * (names.get(one) - names.get(other)));
}

/** Whether ports can be in such a state. */
export function isState(word) {
  return URGENCY.includes(word);
}

/** The ports that contain all words, and are in a state. */
export function chosen(ports, { words, state }) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return ports.filter((port) => (!state || port.state === state) &&
    (wanted.length === 0 || contains(port, wanted)));
}

function contains(port, words) {
  port.text ??= [
    portName(port), port.state, port.reason, ...port.kinds, ...port.frontends, ...port.backends,
  ].join(" ").toLowerCase();
  return words.every((word) => port.text.includes(word));
}
