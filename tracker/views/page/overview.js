// The findings, and the checkpoints that they rest on.

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
  byId("unread").replaceChildren(
    ...coded(
      `analysis.json was written by another version of tracker; not shown in full: ${DATA.unread.join(", ")}. \`tracker analyse\` writes it anew.`,
    ),
  );
  drawModelRows();
  byId("findings").replaceChildren(
    ...DATA.findings.flatMap(({ heading, text }) => [el("dt", {}, heading), el("dd", {}, ...coded(text))]),
  );
  byId("more-box").hidden = !DATA.summary.length;
  byId("more-name").textContent = `All findings (${plural(sentences.length, "sentence")})`;
  byId("more").replaceChildren(...sentences.map((sentence) => el("li", {}, ...coded(capital(sentence)))));
  byId("unanalysed").hidden = DATA.summary.length > 0;
  byId("unanalysed").replaceChildren(...coded(sentences[0]));
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
  box.append(". Curves are means over heads and sequences.");
  drawModels();
}

// Results that contradict the paper's mechanisms, and unstable training.
function drawAlerts() {
  const alerts = DATA.alerts;
  byId("alerts-box").hidden = !alerts.length;
  byId("alerts-name").textContent =
    `${plural(alerts.length, "alert")}: results that contradict the paper's mechanisms, or unstable training`;
  byId("alerts").replaceChildren(...alerts.map((alert) => el("li", {}, ...coded(alert.sentence))));
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

// One row per model: its transition, between which checkpoints, and from which value to which.
function drawModelRows() {
  const rows = DATA.model_rows,
    columns = [
      ["model", "Model"],
      ["transition", "Transition"],
      ["onset", "Onset"],
      ["half", "Half"],
      ["end", "End"],
      ["interval", "Onset to end, 90 %"],
      ["selectivity", "Selectivity"],
      ["entropy", "Entropy"],
    ];
  byId("phases-box").hidden = !rows.length;
  fillTable(
    byId("phase-table"),
    columns.map(([, title]) => ({ title })),
    rows.map((row) => columns.map(([name]) => (row[name] || "–").replace(" -> ", " → "))),
  );
}
