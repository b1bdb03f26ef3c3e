// Asks the server, no more often than it can bear.

/** Milliseconds between two rounds. */
const PERIOD = 2000;

/** A round is followed by a pause of so many times what it took: uproxy has better things to do. */
const PAUSE = 9;

/** Milliseconds until a request counts as failed. */
const PATIENCE = 15000;

const known = new Map();    // The last answer and its tag, by URL.

/** There is no answer, or not the one that was wanted. */
class NoAnswer extends Error {}

/** The answer as an object, and whether it differs from the last one. Throws NoAnswer. */
export async function ask(url) {
  try {
    return await read(url);
  } catch (error) {
    throw new NoAnswer(error.message);
  }
}

/** What to tell people about an error of a round; `since` is when such errors began. */
export function trouble(error, since) {
  const why = error.message ? ` (${error.message})` : "";
  if (error instanceof NoAnswer) {
    return `uproxy does not answer since ${since}${why}. What you see is from before; trying again.`;
  }
  console.error(error);
  return `This page has an error${why}: it does not show what uproxy answers since ${since}. ` +
    "Reload it, and please report this.";
}

async function read(url) {
  const answer = await fetch(url, { cache: "no-cache", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const tag = answer.headers.get("ETag");
  const last = known.get(url);
  if (tag && last?.tag === tag) {
    await answer.body?.cancel();
    return { content: last.content, changed: false };
  }
  const content = await answer.json();
  if (tag) known.set(url, { tag, content });
  return { content, changed: true };
}

/** Calls `round` again and again, but not while nobody looks. */
export function repeat(round) {
  let timer = 0;
  let running = false;
  async function run() {
    clearTimeout(timer);
    if (running) return;
    running = true;
    const begun = performance.now();
    if (!document.hidden) await round();
    running = false;
    timer = setTimeout(run, Math.max(PERIOD, PAUSE * (performance.now() - begun)));
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) run(); });
  run();
  return run;
}
