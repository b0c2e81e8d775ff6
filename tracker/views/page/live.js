// A served page asks its server what has changed: progress every second, everything else when there is more of it.
const ASK_EVERY = 1000;
const answers = new Map();
let version = null;

async function ask(path, parameters = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// One map or spectrum of the store, asked for once per state of the store. Undefined where the server is
// already ahead of this page, or gone: what is drawn then stays until the page has caught up.
async function asked(path, parameters) {
  const key = JSON.stringify([path, parameters]),
    wanted = DATA.version;
  if (!answers.has(key))
    answers.set(
      key,
      ask(path, parameters).catch(() => null),
    );
  const got = await answers.get(key);
  if (got?.version === wanted) return got;
  answers.delete(key);
  return undefined;
}

async function follow() {
  version = DATA.version;
  for (;;) {
    try {
      const now = await ask("progress");
      drawProgress(now);
      if (now.version !== version) {
        await renew();
        version = DATA.version;
      }
    } catch {
      drawProgress(null);
    }
    await new Promise((resolve) => setTimeout(resolve, ASK_EVERY));
  }
}

async function renew() {
  const data = await ask("data");
  writeHash();
  answers.clear();
  unpacked.clear();
  const panels = firstPanels().length;
  take(data);
  drawTexts();
  if (firstPanels().length !== panels) makePanels();
  readState();
  drawAll();
}

// One bar per run of every sweep that is alive; words for screen readers only when something begins or ends.
function drawProgress(now) {
  byId("live").hidden = false;
  const sweeps = now ? now.sweeps : [],
    bars = sweeps.flatMap((sweep) => sweep.bars);
  const status = !now
    ? "The server has stopped; showing the last update."
    : sweeps.some((sweep) => sweep.alive)
      ? `A sweep is running: ${sweeps
          .filter((s) => s.alive)
          .map((s) => s.doing)
          .join(", ")}.`
      : sweeps.length
        ? "A sweep stopped before it was done; run the same command to resume."
        : "No sweep is running; this page updates when one starts.";
  if (byId("live-status").textContent !== status) byId("live-status").textContent = status;
  byId("live-detail").textContent =
    now?.problem ||
    (now
      ? `${plural(now.measured, "checkpoint")} in the store${now.measured ? `; it last changed ${now.age < 2 ? "just now" : `${Math.round(now.age)} s ago`}` : ""}.`
      : "");
  byId("live-bars").replaceChildren(
    ...bars.map((bar) =>
      el(
        "li",
        {},
        el("span", { class: "name" }, bar.name),
        el("progress", { max: bar.total || 1, value: bar.done, "aria-label": bar.name }),
        el("span", { class: "count" }, `${bar.done} of ${bar.total}`),
        el("span", { class: "pace" }, [bar.pace, bar.note].filter(Boolean).join(" · ")),
      ),
    ),
  );
}
