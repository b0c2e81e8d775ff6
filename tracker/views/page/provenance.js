// Provenance of the numbers, and the checkpoints that are not among them.
function drawProvenance() {
  byId("store").textContent = DATA.store;
  const columns = [
    ["Run"],
    ["Suite"],
    ["Source"],
    ["Position encoding"],
    ["Probe"],
    ["Conventions"],
    ["dtype"],
    ["Device"],
    ["tracker"],
    ["Sequences × tokens", 1],
    ["Token digest"],
    ["Undefined rows", 1],
    ["Seconds", 1],
    ["Peak memory", 1],
  ];
  const rows = DATA.runs.map((run) => {
    const f = run.facts;
    return [
      run.label,
      run.suite,
      f.repo,
      f.position_encoding,
      f.probe,
      f.conventions,
      f.dtype,
      f.device,
      f.tracker_version,
      `${f.n_sequences} × ${f.n_tokens}`,
      f.token_digest ? f.token_digest.slice(0, 8) : null,
      f.undefined_rows,
      f.seconds === null ? null : number(f.seconds, 3),
      f.peak_bytes ? `${count(f.peak_bytes).replace("B", "G")}B` : null,
    ];
  });
  // What all runs share stands once above the table.
  const differs = columns.map((_, i) => i === 0 || new Set(rows.map((row) => row[i])).size > 1),
    kept = (cells) => cells.filter((_, i) => differs[i]);
  byId("shared-origin").replaceChildren(
    ...columns.flatMap(([title], i) =>
      differs[i] || !rows.length ? [] : [el("div", {}, el("dt", {}, title), el("dd", {}, rows[0][i] ?? "–"))],
    ),
  );
  fillTable(
    byId("origin"),
    kept(columns).map(([title, numeric]) => ({ title, number: Boolean(numeric) })),
    rows.map(kept),
  );
  byId("not-audited").hidden = DATA.audit.length > 0;
  byId("holes-box").hidden = !DATA.holes.length;
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
