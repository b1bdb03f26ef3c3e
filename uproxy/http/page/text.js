// The only place where text enters the page: always as text, never as markup.

/** Escapes marks that turn the order of letters round, and whatever else is not to be seen. */
export function printable(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (odd) => `\\u{${odd.codePointAt(0).toString(16)}}`);
}

/** Replaces what a node shows, unless it shows that already: selections survive. */
export function write(node, text) {
  const shown = printable(text);
  if (node.textContent !== shown) node.textContent = shown;
}

/** A new element with text and classes. */
export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) write(made, text);
  if (className) made.className = className;
  return made;
}

/** An address, or an option of uproxy, with the brackets and commas next to it: all of it belongs on one line. */
const UNBROKEN =
  /\(?(?:\[[\da-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}|(?:[\da-f]{0,4}:){2,7}[\da-f]{0,4})(?::\d+)?(?:\/\w+)?[),;:]*|(?<!\S)--[a-z][a-z-]*[),;:]*/gi;

/** A sentence as nodes and texts: the addresses and options in it are not broken at the end of a line. */
export function sentence(text) {
  const shown = printable(text);
  const parts = [];
  let end = 0;
  for (const found of shown.matchAll(UNBROKEN)) {
    parts.push(shown.slice(end, found.index), element("span", found[0], "whole"));
    end = found.index + found[0].length;
  }
  return [...parts, shown.slice(end)];
}

/** A name that is broken after "/" and ":", if it has to be. */
export function name(text) {
  return printable(text).split(/(?<=[/:])/).flatMap((part) => [part, document.createElement("wbr")]).slice(0, -1);
}

/** An address, which is never broken: the style sheet needs to know how long it is. */
export function address(text) {
  const made = element("span", text, "address");
  made.style.setProperty("--characters", String(made.textContent.length));
  return made;
}

/** A state, by colour and by word. */
export function pill(word, className = word) {
  return element("span", word, `pill ${className}`);
}

export function byId(id) {
  return document.getElementById(id);
}
