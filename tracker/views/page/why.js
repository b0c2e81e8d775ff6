// What else changes around each change of the spectrum: covariates on the training axis, and how they lie in all runs.
const SHAPES = {
  before: "triangle-left",
  with: "circle",
  after: "triangle-right",
  "cannot tell": "circle-open",
  still: "line-ew-open",
};
const PALE = ["cannot tell", "still"];
const colourOfVerdict = (verdict) => DATA.verdicts[verdict][theme()];
const changesOf = (key) => DATA.lead_lag.filter((change) => change.key === key);

function fillWhyControls() {
  fillSelect(
    byId("why-run"),
    DATA.runs.filter((run) => changesOf(run.key).length).map((run) => ({ id: run.key, text: run.label })),
    state.why,
  );
}

function drawWhy() {
  const run = RUNS.get(state.why),
    changes = run ? changesOf(run.key) : [];
  byId("why").hidden = !changes.length;
  if (!changes.length) return;
  byId("why-title").textContent =
    `${run.label}: ${plural(changes.length, "change")} of the attention spectrum, and what else changes`;
  later("why-plot", () => drawOrder(run, changes));
  drawOrders();
  drawWhyTable(changes);
}

// A lag counts octaves of training from the spectrum's half-way point to the covariate's own.
const octaves = (value) => number(value, 2);
function timingText({ verdict, lag, interval }) {
  const { name } = DATA.verdicts[verdict] || { name: verdict };
  if (verdict === "still" || lag === null) return name;
  const [low, high] = interval || [lag, lag],
    directed = verdict === "before" || verdict === "after",
    ends = directed && low * high >= 0 ? [Math.abs(low), Math.abs(high)].sort((a, b) => a - b) : [low, high],
    range = `${octaves(ends[0])} to ${octaves(ends[1])} octaves`;
  return directed ? `${range} ${verdict === "before" ? "earlier" : "later"}` : `${name} (${range})`;
}
const moveOf = ({ direction, start, finish }) =>
  direction ? `${direction === "up" ? "↑" : "↓"} ${number(start, 3)} → ${number(finish, 3)}` : "";
const lagText = (found) => [moveOf(found), timingText(found)].filter(Boolean).join(", ");

function drawOrder(run, changes) {
  const rowOf = new Map(DATA.covariates.map(({ name }, i) => [name, DATA.covariates.length - 1 - i]));
  const shapes = [],
    points = new Map(Object.keys(SHAPES).map((verdict) => [verdict, []]));
  changes.forEach((change, k) => {
    const x0 = place(change.step_low, run),
      x1 = place(change.step_high, run),
      shift = ((changes.length - 1) / 2 - k) * 0.22;
    if (x0 === null || x1 === null) return;
    shapes.push(shadedSpan(x0, x1, faded(phaseColour("exploratory"), 0.2)));
    for (const { name, title } of DATA.covariates) {
      const covariate = change.covariates[name];
      if (!covariate || !SHAPES[covariate.verdict]) continue;
      const { verdict, bracket } = covariate,
        ends = bracket ? bracket.map((step) => place(step, run)) : [x0, x1],
        y = rowOf.get(name) + shift;
      if (bracket)
        shapes.push({
          type: "line",
          xref: "x",
          yref: "y",
          x0: ends[0],
          x1: ends[1],
          y0: y,
          y1: y,
          line: { color: colourOfVerdict(verdict), width: 4 },
        });
      points
        .get(verdict)
        .push([
          (ends[0] + ends[1]) / 2,
          y,
          `<b>${plotText(title)}</b>: ${lagText(covariate)}<br>spectrum changes: steps ${change.step_low} to ${change.step_high}` +
            (bracket
              ? `<br>covariate changes: steps ${bracket[0]} to ${bracket[1]}`
              : "<br>covariate: no change there"),
        ]);
    }
  });
  const traces = [...points]
    .filter(([, rows]) => rows.length)
    .map(([verdict, rows]) =>
      marks(
        rows,
        {
          symbol: SHAPES[verdict],
          size: 11,
          color: colourOfVerdict(verdict),
          line: { width: 1.8, color: colourOfVerdict(verdict) },
        },
        { name: verdict },
      ),
    );
  // Which way each covariate goes stands at the end of its row, where there is room for it.
  const right = byId("why-plot").clientWidth < 700 ? 12 : 150,
    moves =
      right < 100
        ? []
        : DATA.covariates.map(({ name }) => ({
            text: plotText(
              changes.map((change) => moveOf(change.covariates[name] || {}) || "no change").join("; "),
            ),
            ...{
              x: 1,
              xref: "paper",
              xanchor: "left",
              xshift: 8,
              y: rowOf.get(name),
              yref: "y",
              showarrow: false,
            },
            font: { size: 12, color: css("--ink") },
          }));
  byId("why-legend").replaceChildren(
    ...Object.keys(SHAPES).map((verdict) => {
      const sign = el("b", {}, DATA.verdicts[verdict].sign);
      sign.style.color = textColour(colourOfVerdict(verdict));
      return el("span", {}, sign, ` ${DATA.verdicts[verdict].name}`);
    }),
  );
  return draw(
    "why-plot",
    traces,
    {
      height: 78 + 40 * DATA.covariates.length,
      margin: { l: 150, r: right, t: 30, b: 42 },
      shapes,
      dragmode: false,
      annotations: [...axisBreak([run]), ...moves],
      xaxis: trainingAxis([run], (byId("why-plot").clientWidth || 1100) - 170 - right),
      yaxis: {
        range: [-0.6, DATA.covariates.length - 0.4],
        tickvals: [...rowOf.values()],
        ticktext: DATA.covariates.map(({ title }) => plotText(title)),
        showline: false,
        ticks: "",
        fixedrange: true,
      },
    },
    `Changes of ${run.label} and of its covariates over training`,
    { csv: () => lagTable([run]), runs: [run] },
  );
}

function lagTable(runs) {
  const columns = [
    "covariate",
    "direction",
    "start",
    "finish",
    "half_low",
    "half_high",
    "verdict",
    "lag_octaves",
  ];
  return [
    [...RUN_COLUMNS, "change_low", "change_high", ...columns, "lag_low_90", "lag_high_90"],
    ...runs.flatMap((run) =>
      changesOf(run.key).flatMap((change) =>
        Object.entries(change.covariates).map(([name, found]) => [
          ...runCells(run),
          change.step_low,
          change.step_high,
          name,
          found.direction,
          found.start,
          found.finish,
          ...(found.bracket || [null, null]),
          found.verdict,
          found.lag,
          ...(found.interval || [null, null]),
        ]),
      ),
    ),
  ];
}

// Every run against every covariate: how many octaves of training earlier or later it is half way, at 90 %.
function drawOrders() {
  const timed = (name) => DATA.lead_lag.some((change) => change.covariates[name]?.interval),
    names = DATA.covariates.filter(({ name }) => timed(name)).reverse(),
    runs = DATA.runs.filter((run) => DATA.lead_lag.some((change) => change.key === run.key));
  byId("verdicts-legend").replaceChildren(
    ...runs
      .filter((run, i) => runs.findIndex((each) => each.rank === run.rank) === i)
      .map((run) => swatchKey(run.model, colourOf(run))),
  );
  byId("verdicts-box").hidden = !names.length;
  byId("verdicts-title").textContent = `Earlier or later, in ${plural(runs.length, "run")}`;
  if (names.length) later("verdicts-plot", () => plotOrders(names, runs));
}

function plotOrders(names, runs) {
  const narrow = byId("why").clientWidth < 500,
    spread = Math.min(0.2, 0.7 / Math.max(1, runs.length - 1));
  const traces = runs.map((run, order) => {
    const found = names.flatMap(({ name, title }, row) =>
      DATA.lead_lag
        .filter((change) => change.key === run.key && change.covariates[name]?.interval)
        .map((change) => ({ row, title, lag: change.covariates[name] })),
    );
    const middle = found.map(({ lag }) => (lag.interval[0] + lag.interval[1]) / 2);
    return {
      type: "scatter",
      mode: "markers",
      name: plotText(run.label),
      x: middle,
      y: found.map(({ row }) => row + (order - (runs.length - 1) / 2) * spread),
      error_x: {
        type: "data",
        array: found.map(({ lag }, i) => lag.interval[1] - middle[i]),
        color: colourOf(run),
        thickness: 2,
        width: 0,
      },
      marker: { color: colourOf(run), size: 6, symbol: symbolOf(run) },
      text: found.map(
        ({ title, lag }) => `<b>${plotText(run.label)}</b>, ${plotText(title)}: ${plotText(lagText(lag))}`,
      ),
      hovertemplate: "%{text}<extra></extra>",
    };
  });
  return draw(
    "verdicts-plot",
    traces,
    {
      height: 96 + Math.max(30, Math.min(110, 9 * runs.length)) * names.length,
      margin: { l: 150, r: 16, t: 10, b: 42 },
      dragmode: false,
      shapes: [
        {
          type: "line",
          xref: "x",
          yref: "paper",
          x0: 0,
          x1: 0,
          y0: 0,
          y1: 1,
          layer: "below",
          line: { width: 1.2, color: css("--soft"), dash: "dot" },
        },
      ],
      xaxis: {
        title: {
          text: narrow ? "octaves later" : "octaves after the transition's half way; negative: earlier",
          standoff: 8,
        },
        fixedrange: true,
      },
      yaxis: {
        range: [-0.6, names.length - 0.4],
        tickvals: names.map((_, row) => row),
        ticktext: names.map(({ title }) => plotText(title)),
        showgrid: false,
        ticks: "",
        showline: false,
        fixedrange: true,
      },
    },
    "Timing of every covariate in every run",
    { csv: () => lagTable(runs) },
  );
}

// A row per change and covariate: which way, from where to where, and when.
function drawWhyTable(changes) {
  const rows = changes.flatMap((change) =>
    DATA.covariates
      .filter(({ name }) => change.covariates[name])
      .map(({ name, title }) => ({ change, title, found: change.covariates[name] })),
  );
  const heads = ["Covariate", "Direction", "From → to", "Half way", "Timing"].map((title) => ({ title }));
  fillTable(
    byId("why-table"),
    changes.length > 1 ? [{ title: "Change" }, ...heads] : heads,
    rows.map(({ change, title, found }) => {
      const cells = [
        title,
        found.direction ? (found.direction === "up" ? "↑ rises" : "↓ falls") : null,
        found.direction ? `${number(found.start, 3)} → ${number(found.finish, 3)}` : null,
        found.bracket ? `(${found.bracket[0]}, ${found.bracket[1]}]` : null,
        timingText(found),
      ];
      return changes.length > 1 ? [`(${change.step_low}, ${change.step_high}]`, ...cells] : cells;
    }),
  );
  byId("why-heads").replaceChildren(...changes.flatMap(contributionTexts).map((text) => el("li", {}, text)));
}

function contributionTexts({ step_low, step_high, contributions, landmarks }) {
  const at = `Change in (${step_low}, ${step_high}]`,
    largest = (contributions?.heads || [])
      .slice(0, 3)
      .map((h) => `layer ${h.layer} head ${h.head} (${number(100 * h.share, 2)} %)`);
  return [
    contributions &&
      `${at}: half of it in ${contributions.half_by} of ${plural(contributions.of, "head")}; largest contributors: ${largest.join(", ")}.`,
    landmarks.length && `${at}: known events: ${landmarks.map((mark) => mark.name).join(", ")}.`,
  ].filter(Boolean);
}
