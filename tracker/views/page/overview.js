// The findings, and the checkpoints that they rest on.
const MOST_SENTENCES = 4;

function drawOverview() {
  const { models, runs, checkpoints, failed, missing, damaged } = DATA.counts;
  const suites = [...new Set(DATA.models.map((model) => model.suite))];
  const facts = DATA.runs[0]?.facts;
  byId("eyebrow").textContent = suites.length
    ? `${suites.join(", ")}, ${plural(models, "model")}${facts ? ` · probe: ${facts.n_sequences} × ${facts.n_tokens} tokens` : ""}`
    : "empty store";
  document.title = `${suites.join(", ")}: attention heads over training`;
  const sentences = DATA.summary.length
    ? DATA.summary
    : [
        DATA.analysed
          ? "The analysis found nothing to report."
          : "Not analysed yet: a sweep analyses its results when it ends, `tracker analyse` at any time.",
      ];
  byId("stale").hidden = !DATA.stale;
  byId("unread").hidden = !DATA.unread.length;
  byId("unread").textContent =
    `analysis.json was written by another version of tracker; not shown in full: ${DATA.unread.join(", ")}. \`tracker analyse\` writes it anew.`;
  drawSummaryTable();
  // The table above summarises the sentences on single models; they open on request.
  const ofModels = sentences.filter((sentence) =>
    DATA.summary_rows.some(({ model }) =>
      [":", ",", " seed "].some((sign) => sentence.startsWith(model + sign)),
    ),
  );
  const others = sentences.filter((sentence) => !ofModels.includes(sentence)),
    rest = [...ofModels, ...others.slice(MOST_SENTENCES)];
  const items = (texts) => texts.map((sentence) => el("li", {}, capital(sentence)));
  byId("summary").replaceChildren(...items(others.slice(0, MOST_SENTENCES)));
  byId("more-box").hidden = !rest.length;
  byId("more-name").textContent = `All findings (${rest.length} more)`;
  byId("more").replaceChildren(...items(rest));
  drawAlerts();
  const box = byId("counts");
  box.replaceChildren(
    el("strong", {}, plural(models, "model")),
    runs > models ? ` in ${plural(runs, "run")}` : "",
    ", ",
    el("strong", {}, plural(checkpoints, "checkpoint")),
    " measured",
  );
  if (failed + missing + damaged) {
    const holes = Object.entries({ failed, missing, damaged })
      .filter(([, number]) => number)
      .map(([status, number]) => `${number} ${status}`)
      .join(", ");
    box.append(", ", el("span", { class: "warn" }, holes), " (× on the curves; reasons under Provenance)");
  }
  box.append(
    ". Curves are means over heads and sequences; phases are segments between change points of several metrics together, on the log-step axis.",
  );
  drawModels();
}

// Results that contradict the paper's mechanisms, and unstable training.
function drawAlerts() {
  const alerts = DATA.alerts;
  byId("alerts-box").hidden = !alerts.length;
  byId("alerts-name").textContent =
    `${plural(alerts.length, "alert")}: results that contradict the paper's mechanisms, or unstable training`;
  byId("alerts").replaceChildren(...alerts.map((alert) => el("li", {}, alert.sentence)));
}

function drawModels() {
  const heads = ["Model", "Suite"]
    .map((title) => ({ title }))
    .concat(
      [
        "Seeds",
        "Parameters",
        "without embeddings",
        "Layers",
        "Heads",
        "d_model",
        "Checkpoints",
        "Last step",
        "Not measured",
      ].map((title) => ({ title, number: true })),
    );
  fillTable(
    byId("models"),
    heads,
    DATA.models.map(({ suite, model }) => {
      const runs = DATA.runs.filter((run) => run.suite === suite && run.model === model);
      const facts = runs[0].facts;
      const holes = DATA.holes.filter((hole) => hole.suite === suite && hole.model === model).length;
      return [
        model,
        suite,
        runs.length,
        count(facts.params_total),
        count(facts.params_non_embedding),
        facts.n_layers,
        facts.n_heads,
        facts.d_model,
        runs.reduce((n, run) => n + run.steps.length, 0),
        Math.max(...runs.map((run) => run.steps[run.steps.length - 1])),
        holes,
      ];
    }),
  );
}

// One row per model: its phases, where they begin, and their support.
function drawSummaryTable() {
  const rows = DATA.summary_rows;
  byId("phases-box").hidden = !rows.length;
  const several = new Set(rows.map((row) => row.suite)).size > 1;
  const titles = [
    "Model",
    "Exploratory phase begins",
    "bootstrap support",
    "Selectivity minimum (step)",
    "Specialisation begins",
    "bootstrap support",
    "p (noise alone)",
  ];
  fillTable(
    byId("phase-table"),
    titles.map((title) => ({ title })),
    rows.map((row) => [
      several ? `${row.suite} ${row.model}` : row.model,
      row.exploratory,
      row.exploratory_support,
      row.minimum,
      row.specialisation,
      row.specialisation_support,
      row.p_value,
    ]),
  );
}
