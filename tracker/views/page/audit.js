// The checkpoint audit: its findings, and the checkpoints that they make suspect.
function drawAudit() {
  byId("audit-section").hidden = !DATA.audit.length;
  const suspects = DATA.runs.reduce((n, run) => n + run.suspects.filter(Boolean).length, 0);
  const rows = findingRows(),
    checked = DATA.audit.map((entry) => `${entry.repo} (${plural(entry.checked, "step")})`).join(", ");
  byId("audit-verdict").textContent =
    `${suspects ? `${plural(suspects, "checkpoint")} of ${DATA.counts.checkpoints} shown ${suspects === 1 ? "is" : "are"} suspect` : "No checkpoint shown is suspect"}; ${plural(rows.length, "kind")} of finding.`;
  byId("audit-note").textContent =
    `Compared by file hashes: ${checked}. Suspect checkpoints are hollow in the curves and maps and left out of fits; twins at steps 0 and 1 are expected where the first learning rate is 0.`;
  byId("audit").hidden = !rows.length;
  fillTable(
    byId("audit"),
    ["Repository", "Fault", "Steps", "With", "File", "Known"].map((title) => ({ title })),
    rows.map((row) => row.map((cell, i) => (i === 2 ? cell.join(", ") : cell))),
  );
  drawSuspects();
}

// A row per fault, partner and source, with all its steps.
function findingRows() {
  const rows = new Map();
  for (const entry of DATA.audit) {
    for (const f of entry.findings) {
      const key = [entry.repo, f.fault, f.with, f.file, f.known].join("\n");
      if (!rows.has(key))
        rows.set(key, [entry.repo, f.fault, [], f.with, f.file, f.known ? `reported in ${f.known}` : "new"]);
      rows.get(key)[2].push(f.step);
    }
    for (const d of entry.disagreements)
      rows.set(`${entry.repo}\n${d.source}\n${d.reported}`, [
        entry.repo,
        d.reported,
        d.steps,
        null,
        null,
        `reported in ${d.source}, but the hub ${d.hub}`,
      ]);
  }
  return [...rows.values()];
}

// Every suspect checkpoint with a button that shows its head map.
function drawSuspects() {
  const found = DATA.runs.flatMap((run) =>
    run.steps.map((step, i) => ({ run, step, why: run.suspects[i] })).filter(({ why }) => why),
  );
  byId("suspects-box").hidden = !found.length;
  byId("suspects-name").textContent = plural(found.length, "suspect checkpoint");
  fillTable(
    byId("suspects"),
    [{ title: "Run" }, { title: "Step", number: true }, { title: "Why" }, { title: "" }],
    found.map(({ run, step, why }) => {
      const show = el(
        "button",
        { type: "button", class: "quiet", "aria-label": `Show the head map of ${run.label}, step ${step}` },
        "Show",
      );
      show.addEventListener("click", () => {
        set({ run: run.key, step: String(step), head: "" });
        fillHeadControls();
        drawHeads().then(drawSpectrum);
        byId("heads").scrollIntoView();
        byId("heads").focus({ preventScroll: true });
      });
      return [run.label, step, why.replace(/^suspect: /, ""), show];
    }),
  );
}
