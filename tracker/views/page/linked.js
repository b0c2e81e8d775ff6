// What plots share: one zoom and one cross-hair over everything that is drawn against training, and their data as CSV.
let zoomed = null;
const LINKED = new Set();

// Links a plot whose horizontal axis is training; `runs` name the steps that its axis labels when zoomed in.
function link(node, runs) {
  node.linkedRuns = runs;
  if (LINKED.has(node)) return;
  LINKED.add(node);
  node.on("plotly_relayout", (change) => zoomTo(node, change));
  node.on("plotly_hover", (event) => crossHair(event.points[0]?.x));
  node.on("plotly_unhover", () => crossHair(null));
}

const shownPlots = () => [...LINKED].filter((node) => node.isConnected && node.offsetParent);

function zoomTo(source, change) {
  const range = change["xaxis.range"] || [change["xaxis.range[0]"], change["xaxis.range[1]"]];
  if (source.settingRange || range[0] === undefined) return;
  const full = trainingAxis(source.linkedRuns, 400, null).range;
  zoomed = range[0] <= full[0] + 1e-9 && range[1] >= full[1] - 1e-9 ? null : range;
  for (const node of shownPlots()) {
    const {
      range: shown,
      tickvals,
      ticktext,
    } = trainingAxis(node.linkedRuns, node._fullLayout.xaxis._length);
    node.settingRange = true;
    Plotly.relayout(node, {
      "xaxis.range": shown,
      "xaxis.tickvals": tickvals,
      "xaxis.ticktext": ticktext,
    }).finally(() => (node.settingRange = false));
  }
}

function crossHair(x) {
  for (const node of shownPlots()) {
    const axis = node._fullLayout.xaxis,
      line = node.querySelector(".cross") || node.appendChild(el("div", { class: "cross" })),
      at = x === null || x === undefined ? NaN : axis.l2p(x);
    line.hidden = !(at >= 0 && at <= axis._length);
    line.style.left = `${axis._offset + at}px`;
    line.style.height = `${node._fullLayout.height - node._fullLayout.margin.b}px`;
  }
}

// --- CSV ---
// `table` returns the heading and the rows of a view; it is asked when the button is pressed.
function offerCsv(node, table, label) {
  node.csvTable = table;
  let button = node.querySelector(":scope > .csv");
  if (!table) button?.remove();
  if (!table || button) return;
  button = el("button", { type: "button", class: "quiet csv", "aria-label": `Save as CSV: ${label}` }, "CSV");
  button.addEventListener("click", () => saveCsv(node.id, node.csvTable()));
  node.append(button);
}

function saveCsv(name, rows) {
  const url = URL.createObjectURL(new Blob([csvText(rows)], { type: "text/csv" })),
    anchor = el("a", { href: url, download: `tracker-${name}.csv` });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Text that a spreadsheet would take for a formula begins with an apostrophe.
function csvText(rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const RUN_COLUMNS = ["suite", "model", "seed"];
const runCells = (run) => [run.suite, run.model, run.seed];

// Curves of some metrics, as they stand behind panels.
const seriesTable = (runs, names) => [
  [...RUN_COLUMNS, "step", "tokens", "metric", "mean", "half_95", "q25", "q75", "suspect"],
  ...runs.flatMap((run) =>
    names
      .filter((name) => run.series[name])
      .flatMap((name) => {
        const { mean, half, q25, q75 } = run.series[name];
        return run.steps.map((step, i) => [
          ...runCells(run),
          step,
          run.tokens[i],
          name,
          mean[i],
          half[i],
          q25[i],
          q75[i],
          run.suspects[i],
        ]);
      }),
  ),
];

// --- sections ---
function fillSections() {
  const shown = [...document.querySelectorAll("main > section")].filter((section) => !section.hidden);
  byId("sections").replaceChildren(
    ...shown.map((section) => {
      const name = section.querySelector("h2").textContent,
        anchor = el("a", { href: `#${section.id}` }, name);
      anchor.addEventListener("click", (event) => {
        event.preventDefault();
        section.scrollIntoView();
        section.focus({ preventScroll: true });
      });
      return anchor;
    }),
  );
  markSection();
}

// The section under the bar is the current one.
function markSection() {
  const sections = [...document.querySelectorAll("main > section:not([hidden])")],
    atEnd =
      window.scrollY > 0 && window.scrollY + window.innerHeight >= document.documentElement.scrollHeight - 2,
    passed = sections.filter((section) => section.getBoundingClientRect().top < 120),
    current = (atEnd ? sections : passed).at(-1) || sections[0];
  for (const anchor of byId("sections").children)
    if (anchor.getAttribute("href") === `#${current?.id}`) anchor.setAttribute("aria-current", "true");
    else anchor.removeAttribute("aria-current");
}

// Tables that scroll can be reached by keyboard; those that do not are no stop on the way.
function watchScrolling() {
  const watcher = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const box = target.closest(".scroll"),
        scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      box.toggleAttribute("tabindex", scrolls);
      if (scrolls) box.setAttribute("tabindex", "0");
    }
  });
  for (const part of document.querySelectorAll(".scroll, .scroll > table")) watcher.observe(part);
}
