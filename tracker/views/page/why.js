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
    `${run.label}: what else changes around ${changes.length === 1 ? "its transition" : `${changes.length} changes`}`;
  drawOrder(run, changes);
  drawOrders();
  drawWhyTable(changes);
}

// A lag counts octaves of training from the spectrum's half-way point to the covariate's own.
const octaves = (value) => number(value, 2);
function lagText({ verdict, lag, interval, direction, start, finish }) {
  const { name } = DATA.verdicts[verdict] || { name: verdict };
  if (verdict === "still" || lag === null) return name;
  const [low, high] = interval || [lag, lag],
    directed = verdict === "before" || verdict === "after";
  const range =
    directed && low * high >= 0
      ? `${octaves(Math.min(Math.abs(low), Math.abs(high)))} to ${octaves(Math.max(Math.abs(low), Math.abs(high)))} octaves`
      : `${octaves(low)} to ${octaves(high)} octaves`;
  const moved = direction
    ? `${direction === "up" ? "rises" : "falls"} ${number(start)} → ${number(finish)}, `
    : "";
  if (!directed) return `${moved}${name} (${range})`;
  return `${moved}${range} ${verdict === "before" ? "earlier" : "later"}`;
}

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
  byId("why-legend").replaceChildren(
    ...Object.keys(SHAPES).map((verdict) => {
      const sign = el("b", {}, DATA.verdicts[verdict].sign);
      sign.style.color = textColour(colourOfVerdict(verdict));
      return el("span", {}, sign, ` ${DATA.verdicts[verdict].name}`);
    }),
  );
  draw(
    "why-plot",
    traces,
    {
      height: 78 + 44 * DATA.covariates.length,
      margin: { l: 150, r: 16, t: 10, b: 42 },
      shapes,
      dragmode: false,
      annotations: axisBreak([run]),
      xaxis: trainingAxis([run], (byId("why-plot").clientWidth || 1100) - 166),
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
    () => orderTable([run]),
  );
}

const orderTable = (runs) => [
  [
    ...RUN_HEADS,
    "half_after",
    "half_by",
    "covariate",
    "verdict",
    "lag_octaves",
    "low_90",
    "high_90",
    "start",
    "finish",
  ],
  ...runs.flatMap((run) =>
    changesOf(run.key).flatMap((change) =>
      Object.entries(change.covariates).map(([name, c]) => [
        ...runCells(run),
        change.step_low,
        change.step_high,
        name,
        c.verdict,
        c.lag,
        ...(c.interval || [null, null]),
        c.start,
        c.finish,
      ]),
    ),
  ),
];

// Every run against every covariate: how many octaves of training earlier or later it is half way, at 90 %.
function drawOrders() {
  const names = [...DATA.covariates].reverse(),
    runs = DATA.runs.filter((run) => DATA.lead_lag.some((change) => change.key === run.key)),
    spread = 0.7 / Math.max(1, runs.length - 1);
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
      y: found.map(({ row }) => row + (runs.length > 1 ? order * spread - 0.35 : 0)),
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
  byId("verdicts-title").textContent = `Earlier or later, in ${plural(runs.length, "run")}`;
  draw(
    "verdicts-plot",
    traces,
    {
      height: 96 + Math.max(30, 9 * runs.length) * names.length,
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
          text: "octaves from the transition's half to the covariate's (90 %); negative: earlier",
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
    () => orderTable(runs),
  );
  byId("verdicts-legend").replaceChildren(
    ...[...new Map(runs.map((run) => [modelKey(run), run])).values()].map((run) => {
      const swatch = el("i");
      swatch.style.setProperty("--swatch", colourOf(run));
      return el("span", { class: "key" }, swatch, run.model);
    }),
  );
}

// A row per covariate and move of the spectrum.
function drawWhyTable(changes) {
  const several = changes.length > 1,
    rows = [],
    said = [];
  for (const { step_low, step_high, covariates, contributions, landmarks } of changes) {
    const when = `(${step_low}, ${step_high}]`;
    for (const { name, title } of DATA.covariates) {
      const found = covariates[name];
      if (!found) continue;
      const { verdict, interval, bracket, direction, start, finish } = found;
      rows.push([
        ...(several ? [when] : []),
        title,
        direction
          ? `${direction === "up" ? "rises" : "falls"} ${number(start, 3)} → ${number(finish, 3)}`
          : null,
        bracket ? `(${bracket[0]}, ${bracket[1]}]` : null,
        (DATA.verdicts[verdict] || { name: verdict }).name,
        interval ? interval.map((value) => (value > 0 ? "+" : "") + octaves(value)).join(" to ") : null,
      ]);
    }
    if (contributions) {
      const most = contributions.heads.slice(0, 3);
      said.push(
        `Half of what changes in ${when} is in ${contributions.half_by} of ${plural(contributions.of, "head")}; most in ` +
          most.map((h) => `layer ${h.layer} head ${h.head} (${number(100 * h.share, 2)} %)`).join(", ") +
          ".",
      );
    }
    if (landmarks.length)
      said.push(`Known events in ${when}: ${landmarks.map((mark) => mark.name).join(", ")}.`);
  }
  fillTable(
    byId("why-table"),
    [
      ...(several ? [{ title: "Transition" }] : []),
      { title: "What else" },
      { title: "From → to" },
      { title: "Half in steps" },
      { title: "To the transition" },
      { title: "Octaves later (90 %)" },
    ],
    rows,
  );
  byId("why-heads").replaceChildren(...said.map((text) => el("li", {}, text)));
}
