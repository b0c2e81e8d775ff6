// Models of one shape that differ in their position encoding: one metric over training, with bands over seeds.
const ENCODING_COLOURS = {
  light: [
    "#1b2559",
    "#b4541a",
    "#2d8a6b",
    "#8a3b86",
    "#7a6a12",
    "#2f7fb5",
    "#a03045",
    "#5b6470",
    "#4d7c1f",
    "#905a2e",
  ],
  dark: [
    "#e8ecff",
    "#f0955a",
    "#62c9a4",
    "#d48ad0",
    "#d8c65a",
    "#79bdea",
    "#f08497",
    "#a9b3c0",
    "#a5d072",
    "#d9a878",
  ],
};
const encodingGroup = () => DATA.encodings[Math.min(Number(state.eg) || 0, DATA.encodings.length - 1)];
const encodingName = (model) =>
  (model.model.includes("-") ? model.model.slice(model.model.indexOf("-") + 1) : model.encoding) +
  (model.own_body ? " (own architecture)" : "");
const encodingMetrics = (group) =>
  [...new Set(group.models.flatMap((model) => Object.keys(model.metrics)))].filter((name) =>
    METRIC.has(name),
  );

function fillEncodingControls() {
  if (!DATA.encodings.length) return;
  fillSelect(
    byId("eg"),
    DATA.encodings.map((group, i) => ({ id: String(i), text: `${group.suite}, ${group.reference}` })),
    state.eg,
  );
  const names = encodingMetrics(encodingGroup());
  if (!names.includes(state.em)) state.em = names[0];
  fillSelect(
    byId("em"),
    names.map((name) => ({ id: name, text: METRIC.get(name).title })),
    state.em,
  );
}

function drawEncodings() {
  byId("encodings").hidden = !DATA.encodings.length;
  if (!DATA.encodings.length) return;
  fillEncodingControls();
  const group = encodingGroup(),
    metric = METRIC.get(state.em);
  byId("encodings-title").textContent =
    `${metric.title}${metric.unit ? ` (${metric.unit})` : ""} of ${plural(group.models.length, "position encoding")}, mean over seeds`;
  byId("encodings-said").replaceChildren(...group.sentences.map((text) => el("li", {}, typeset(text))));
  later("encodings-plot", () => plotEncodings(group, metric));
  drawEncodingTable(group);
}

function plotEncodings(group, metric) {
  const colours = ENCODING_COLOURS[theme()];
  const runOf = (model) => DATA.runs.find((run) => run.suite === group.suite && run.model === model.model),
    runs = group.models.map(runOf).filter(Boolean);
  const traces = group.models.flatMap((model, i) => {
    const curve = model.metrics[state.em],
      run = runOf(model);
    if (!curve || !run) return [];
    const x = model.steps.map((step) => place(step, run)),
      colour = colours[i % colours.length],
      name = encodingName(model);
    const edge = (sign) =>
      curve.mean.map((mean, k) => (mean === null ? null : mean + sign * (curve.half[k] ?? 0)));
    const quiet = {
      type: "scatter",
      mode: "lines",
      x,
      hoverinfo: "skip",
      line: { width: 0 },
      legendgroup: name,
      showlegend: false,
    };
    return [
      { ...quiet, y: edge(1) },
      { ...quiet, y: edge(-1), fill: "tonexty", fillcolor: faded(colour, 0.13) },
      {
        type: "scatter",
        mode: "lines+markers",
        name: plotText(name),
        legendgroup: name,
        x,
        y: curve.mean,
        line: { color: colour, width: 2, dash: model.own_body ? "dot" : "solid" },
        marker: { size: 6, color: colour, symbol: SYMBOLS[i % SYMBOLS.length] },
        text: model.steps.map(
          (step, k) =>
            `<b>${plotText(name)}</b>, step ${step}<br>${number(curve.mean[k])}${curve.half[k] === null ? "" : " ± " + number(curve.half[k], 2)} (${plural(model.seeds.length, "seed")})`,
        ),
        hovertemplate: "%{text}<extra></extra>",
      },
    ];
  });
  return draw(
    "encodings-plot",
    traces,
    {
      height: 400,
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      margin: { l: 56, r: 24, t: 10, b: 48 },
      annotations: axisBreak(runs),
      xaxis: trainingAxis(runs, (byId("encodings-plot").clientWidth || 1100) - 80),
      yaxis: { nticks: 6 },
    },
    `${metric.title} of each position encoding over training`,
    {
      csv: () => [
        ["suite", "model", "encoding", "step", "metric", "mean", "half_95_over_seeds"],
        ...group.models.flatMap((model) =>
          Object.entries(model.metrics).flatMap(([name, { mean, half }]) =>
            model.steps.map((step, k) => [
              group.suite,
              model.model,
              model.encoding,
              step,
              name,
              mean[k],
              half[k],
            ]),
          ),
        ),
      ],
      runs,
    },
  );
}

// The paper's table 4: every metric at the end of training. A star: differs from the first, by the analysis.
function drawEncodingTable(group) {
  const names = encodingMetrics(group),
    stars = new Set(
      group.differences.filter((each) => each.matters).map((each) => `${each.model} ${each.metric}`),
    );
  fillTable(
    byId("encodings-table"),
    [
      { title: "Encoding" },
      { title: "Seeds", number: true },
      { title: "Step", number: true },
      ...names.map((name) => ({ title: METRIC.get(name).title, number: true })),
      { title: "Exploratory", number: true },
      { title: "Specialisation", number: true },
    ],
    group.models.map((model) => [
      encodingName(model),
      model.seeds.length,
      model.steps.at(-1),
      ...names.map((name) => {
        const mean = model.metrics[name]?.mean.at(-1) ?? null,
          half = model.metrics[name]?.half.at(-1) ?? null;
        if (mean === null) return null;
        return `${number(mean, 3)}${half === null ? "" : ` ± ${number(half, 2)}`}${stars.has(`${model.model} ${name}`) ? " *" : ""}`;
      }),
      `${model.phases.exploratory} of ${model.seeds.length}`,
      `${model.phases.specialisation} of ${model.seeds.length}`,
    ]),
  );
}
