// What a view shows, as CSV: steps and values as measured, not places on the page.
function saveCsv(name, [heads, ...rows]) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    // A spreadsheet takes text that begins like a formula for one.
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = [heads, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  el("a", { href: address, download: `tracker-${name}.csv` }).click();
  URL.revokeObjectURL(address);
}

const RUN_HEADS = ["suite", "model", "seed"];
const runCells = (run) => [run.suite, run.model, run.seed];

// Metrics of runs over training, a row per checkpoint.
const seriesTable = (runs, names) => [
  [...RUN_HEADS, "step", "tokens", "metric", "mean", "half_width_95", "q25", "q75", "suspect"],
  ...runs.flatMap((run) =>
    names
      .filter((name) => run.series[name])
      .flatMap((name) =>
        run.steps.map((step, i) => {
          const { mean, half, q25, q75 } = run.series[name];
          return [
            ...runCells(run),
            step,
            run.tokens[i],
            name,
            mean[i],
            half[i],
            q25[i],
            q75[i],
            run.suspects[i],
          ];
        }),
      ),
  ),
];

// The moves of runs with their dates, a row per move.
const movesTable = (runs) => [
  [
    ...RUN_HEADS,
    "role",
    "pace",
    ...["onset", "half", "end"].flatMap((name) =>
      ["after", "by", "low_90", "high_90"].map((end) => `${name}_${end}`),
    ),
  ],
  ...runs.flatMap((run) =>
    (transitionOf(run.key)?.moves || []).map((move) => [
      ...runCells(run),
      move.role || "move",
      move.pace,
      ...move.dates.flatMap(({ between, interval }) => [...between, ...interval]),
    ]),
  ),
];
