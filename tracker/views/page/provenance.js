// Provenance of the numbers, and the checkpoints that are not among them.
const ORIGIN = [
  ["Suite", (run) => run.suite],
  ["Source", (run) => run.facts.repo],
  ["Position encoding", (run) => run.facts.position_encoding],
  ["dtype", (run) => run.facts.dtype],
  ["Device", (run) => run.facts.device],
  ["tracker", (run) => run.facts.tracker_version],
  ["Sequences × tokens", (run) => `${run.facts.n_sequences} × ${run.facts.n_tokens}`],
  ["Token digest", (run) => run.facts.token_digest?.slice(0, 8) ?? null],
  ["Undefined rows", (run) => run.facts.undefined_rows],
  ["Seconds", (run) => (run.facts.seconds === null ? null : number(run.facts.seconds, 3))],
  ["Peak memory", (run) => (run.facts.peak_bytes ? bytes(run.facts.peak_bytes) : null)],
];
const NUMERIC = ["Sequences × tokens", "Undefined rows", "Seconds", "Peak memory"];

// What all runs share stands in a sentence, what differs in the table.
function drawProvenance() {
  byId("store").textContent = DATA.store;
  const columns = ORIGIN.map(([title, of]) => ({ title, cells: DATA.runs.map(of) }));
  const shared = (cells) => cells.length > 1 && new Set(cells).size === 1,
    common = columns.filter(({ cells }) => shared(cells) && cells[0] !== null),
    differing = columns.filter(({ cells }) => !shared(cells));
  byId("origin-common").textContent = [
    ["probe", DATA.probe],
    ["conventions", DATA.conventions],
    ...common.map(({ title, cells }) => [
      title === title.toLowerCase() ? title : title.charAt(0).toLowerCase() + title.slice(1),
      cells[0],
    ]),
  ]
    .map(([title, value]) => `${title} ${value}`)
    .join("; ");
  fillTable(
    byId("origin"),
    [{ title: "Run" }, ...differing.map(({ title }) => ({ title, number: NUMERIC.includes(title) }))],
    DATA.runs.map((run, i) => [run.label, ...differing.map(({ cells }) => cells[i])]),
  );
  byId("not-audited").hidden = DATA.audit.length > 0;
  byId("no-holes").textContent = DATA.holes.length ? "" : "None: every planned checkpoint was measured.";
  byId("holes").hidden = !DATA.holes.length;
  fillTable(
    byId("holes"),
    [
      { title: "Suite" },
      { title: "Model" },
      { title: "Seed", number: true },
      { title: "Step", number: true },
      { title: "Status" },
      { title: "Reason" },
    ],
    DATA.holes.map((hole) => [hole.suite, hole.model, hole.seed, hole.step, hole.status, hole.reason]),
  );
  fillTable(
    byId("commits"),
    [{ title: "Run" }, { title: "Step: commit or fingerprint" }],
    DATA.runs.map((run) => [
      run.label,
      run.steps.map((step, i) => `${step}: ${run.commits[i] ?? "unknown"}`).join("   "),
    ]),
  );
  fillTable(
    byId("meanings"),
    [{ title: "Metric" }, { title: "Unit" }, { title: "Meaning" }, { title: "Source" }, { title: "Column" }],
    DATA.metrics.map((m) => [m.title, m.unit || null, m.meaning, m.source, m.name]),
  );
}
