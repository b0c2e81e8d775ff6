// A metric against model size at one step, with the threshold that the analysis found, or why it found none.
function fillScaleControls() {
  fillSelect(byId("sm"), metricOptions(), state.sm);
  fillSelect(
    byId("sx"),
    varyingAxes().map(({ name, title }) => ({ id: name, text: title })),
    state.sx,
  );
  const steps = [...DATA.shared_steps].reverse();
  if (state.ss !== "last" && !steps.includes(Number(state.ss))) set({ ss: "last" });
  fillSelect(
    byId("ss"),
    [
      { id: "last", text: steps.length ? `${steps[0]} (last common)` : "last of each" },
      ...steps.slice(1).map((step) => ({ id: String(step), text: String(step) })),
    ],
    state.ss,
  );
}

const scaleStep = () => (state.ss === "last" ? (DATA.shared_steps.at(-1) ?? null) : Number(state.ss));

// The paper's points for a metric, whatever its signal: table 6 at the end of training, table 5 at the step shown.
function paperPoints(step) {
  const bare = state.sm.replace(/^averaged_/, ""),
    found =
      state.paper === "on" ? DATA.paper.points.filter((p) => p.metric === bare && p.sizes[state.sx]) : [],
    training = found.filter((p) => p.table === 5),
    shown = training.find((p) => p.step === step) || training.at(-1);
  return [...found.filter((p) => p.table === 6), ...(shown ? [shown] : [])];
}
const hasPaper = () => DATA.paper.points.some((p) => p.metric === state.sm.replace(/^averaged_/, ""));

function drawScale() {
  const metric = METRIC.get(state.sm),
    sizes = new Set(DATA.runs.map((run) => run.facts.params_non_embedding));
  byId("scale").hidden = !metric || !DATA.runs.length || (sizes.size < 2 && !DATA.thresholds.length);
  if (byId("scale").hidden) return;
  const step = scaleStep(),
    points = [];
  for (const run of DATA.runs) {
    const series = run.series[state.sm],
      size = run.facts[state.sx];
    const i = step === null ? run.steps.length - 1 : run.steps.indexOf(step);
    if (series && size && i >= 0 && series.mean[i] !== null)
      points.push({
        run,
        size,
        y: series.mean[i],
        half: series.half[i],
        step: run.steps[i],
        suspect: run.suspects[i],
      });
  }
  const sizeTitle = DATA.axes.find((axis) => axis.name === state.sx).title;
  byId("scale-title").textContent =
    `${metric.title}${metric.unit ? ` (${metric.unit})` : ""} at ${step === null ? "the last step of each model" : `step ${step}`}`;
  const found = thresholdFor(step);
  const paper = paperPoints(step);
  byId("paper-points-box").hidden = !hasPaper();
  byId("paper-points").checked = state.paper === "on";
  byId("scale-paper").hidden = !paper.length;
  byId("scale-paper").textContent =
    `Hollow: the paper's Pythia models. Table 6 (step 143000) is nearest to averaged attention, table 5 (6.9b, step ${paper.at(-1)?.step}) to attention rows; filled: this store, ${state.sm.startsWith("averaged_") ? "averaged attention" : "attention rows"}. Dashed: 410M, where the paper places its threshold.`;
  later("scale-plot", () => drawScalePlot(points, sizeTitle, metric, found, paper));
  byId("scale-sentence").textContent = typeset(verdict(found, points, sizeTitle));
  drawAxes(step);
}

// The same metric over every axis of size that was analysed.
function drawAxes(step) {
  const rows = DATA.axes.map((axis) => [axis, thresholdFor(step, axis.name)]).filter(([, found]) => found);
  const told = rows.some(([, t]) => t.p_value !== null || (t.aicc ?? null) !== null);
  byId("axes-box").hidden = !told;
  if (!told) return;
  const least = Math.min(...rows.map(([, found]) => found.aicc ?? Infinity));
  const span = (pair) => (pair ? `(${count(pair[0])}, ${count(pair[1])}]` : null);
  byId("axes-name").textContent =
    `${METRIC.get(state.sm).title} against ${rows.length === 1 ? "one measure" : `${rows.length} measures`} of size`;
  fillTable(
    byId("axes"),
    [
      { title: "Size" },
      { title: "Sizes", number: true },
      { title: "Threshold" },
      { title: "90 % interval" },
      { title: "Effect", number: true },
      { title: "p", number: true },
      { title: "p, corrected", number: true },
      { title: "Best shape" },
      { title: "ΔAICc", number: true },
      { title: "Best" },
    ],
    rows.map(([axis, t]) => [
      axis.title,
      t.sizes ?? null,
      t.low === null ? "none found" : span([t.low, t.high]),
      span(t.interval),
      t.effect === null ? null : number(t.effect, 3),
      t.p_value === null ? null : number(t.p_value, 2),
      t.p_corrected === null || t.p_corrected === undefined ? null : number(t.p_corrected, 2),
      t.shape ?? null,
      t.aicc === null || t.aicc === undefined ? null : number(t.aicc - least, 3),
      t.best_axes?.includes(axis.name) ? "yes" : null,
    ]),
  );
}

// Axes on which the models differ: the same size for all says nothing.
const varyingAxes = () =>
  DATA.axes.filter(
    ({ name }) =>
      name === "params_non_embedding" ||
      new Set(DATA.runs.map((run) => run.facts[name]).filter((size) => size !== null && size !== undefined))
        .size > 1,
  );
const thresholdFor = (step, axis = state.sx) =>
  DATA.thresholds.find((t) => t.metric === state.sm && t.axis === axis && t.step === step);

// Hollow points, one symbol per table, each table named with the signal that it is nearest to.
function paperTraces(paper) {
  return [6, 5].map((table) => {
    const points = paper.filter((p) => p.table === table);
    return marks(
      points.map((p) => [
        p.sizes[state.sx],
        p.value,
        `<b>${p.model}</b>, paper&#39;s table ${table}, step ${p.step}<br>${p.signal}<br>${number(p.value)}`,
      ]),
      {
        symbol: table === 6 ? "circle-open" : "diamond-open",
        size: 10,
        color: css("--warn"),
        line: { width: 1.8, color: css("--warn") },
      },
      {
        name: points.length ? `paper, table ${table}: ${points[0].signal}` : "",
        showlegend: points.length > 0,
      },
    );
  });
}

function drawScalePlot(points, sizeTitle, metric, found, paper) {
  const sizes = new Map();
  for (const point of points) sizes.set(point.size, [...(sizes.get(point.size) || []), point]);
  const means = [...sizes.values()]
    .map((group) => [group[0].size, group.reduce((sum, p) => sum + p.y, 0) / group.length])
    .sort((a, b) => a[0] - b[0]);
  const trend = {
    type: "scatter",
    mode: "lines",
    showlegend: false,
    x: means.map((p) => p[0]),
    y: means.map((p) => p[1]),
    hoverinfo: "skip",
    line: { color: faded(css("--soft"), 0.5), width: 1.6 },
  };
  const dots = {
    type: "scatter",
    mode: "markers",
    name: "this store",
    x: points.map((p) => p.size),
    y: points.map((p) => p.y),
    error_y: {
      type: "data",
      array: points.map((p) => p.half || 0),
      thickness: 1.3,
      width: 4,
      color: css("--soft"),
    },
    marker: {
      size: 11,
      color: points.map((p) => colourOf(p.run)),
      symbol: points.map((p) => symbolOf(p.run) + (p.suspect ? "-open" : "")),
      line: { width: 1, color: css("--soft") },
    },
    text: points.map(
      (p) =>
        `<b>${plotText(p.run.label)}</b>, step ${p.step}<br>${plotText(sizeTitle)}: ${count(p.size)}<br>${plotText(metric.title)} ${number(p.y)}${p.half === null ? "" : " ± " + number(p.half, 2)}`,
    ),
    hovertemplate: "%{text}<extra></extra>",
  };
  const values = [...points.map((p) => p.size), ...paper.map((p) => p.sizes[state.sx])],
    low = Math.log10(Math.min(...values)),
    high = Math.log10(Math.max(...values)),
    pad = Math.max(0.08, (high - low) * 0.08),
    height = paper.length ? 420 : 380;
  const named = nameTags(
    [...sizes.values()].sort((a, b) => a[0].size - b[0].size),
    high - low + 2 * pad,
    spanOf([
      ...points.flatMap((p) => [p.y - (p.half || 0), p.y + (p.half || 0)]),
      ...paper.map((p) => p.value),
    ]) /
      (0.9 * (height - 82)),
  );
  const shapes = [],
    claimed = found && found.low !== null && found.high !== null;
  if (claimed) {
    const wide = found.interval;
    if (wide)
      shapes.push({
        ...shadedSpan(wide[0], wide[1], faded(phaseColour("exploratory"), 0.07)),
        line: { width: 1, dash: "dot", color: phaseColour("exploratory") },
      });
    shapes.push(shadedSpan(found.low, found.high, faded(phaseColour("exploratory"), 0.16)));
    named.push({
      text: wide ? "threshold; dotted: 90 % interval" : "threshold",
      x: (Math.log10(found.low) + Math.log10(found.high)) / 2,
      y: 1,
      yref: "paper",
      yanchor: "bottom",
      showarrow: false,
      font: { size: 12, color: css("--warn") },
    });
  }
  const line = DATA.paper.threshold.sizes[state.sx];
  if (paper.length && line) {
    const dash = { color: css("--warn"), width: 1.2, dash: "dash" };
    shapes.push({
      type: "line",
      xref: "x",
      yref: "paper",
      x0: line,
      x1: line,
      y0: 0,
      y1: 1,
      layer: "below",
      line: dash,
    });
    named.push({
      ...{ text: DATA.paper.threshold.model, x: Math.log10(line), y: 1, yref: "paper", yanchor: "bottom" },
      ...{ showarrow: false, font: { size: 12, color: css("--warn") } },
    });
  }
  const ticks = [...new Set(values)].sort((a, b) => a - b);
  const annotations = points.length ? named : [note("No model has this metric at this step")];
  return draw(
    "scale-plot",
    points.length ? [trend, dots, ...paperTraces(paper)] : [],
    {
      height,
      margin: { l: 56, r: 24, t: 34, b: 48 },
      showlegend: paper.length > 0,
      legend: { orientation: "h", x: 0, y: -0.16, yanchor: "top", font: { color: css("--soft") } },
      shapes,
      annotations,
      xaxis: {
        type: "log",
        title: { text: sizeTitle, standoff: 8 },
        range: points.length ? [low - pad, high + pad] : [0, 1],
        tickvals: thinned(ticks),
        ticktext: thinned(ticks).map(count),
        showgrid: false,
      },
      yaxis: { nticks: 6 },
    },
    `${metric.title} against ${sizeTitle}`,
    {
      csv: () => [
        ["source", "model", "seed", "step", "metric", state.sx, "mean", "half_95"],
        ...points.map((p) => ["store", p.run.model, p.run.seed, p.step, state.sm, p.size, p.y, p.half]),
        ...paper.map((p) => [
          ...[`paper, table ${p.table}: ${p.signal}`, p.model, null, p.step],
          ...[p.metric, p.sizes[state.sx], p.value, null],
        ]),
      ],
    },
  );
}

const spanOf = (values) => Math.max(...values) - Math.min(...values) || 1;

// Names above their points, those of one size stacked, and as many lines higher as others take their place.
function nameTags(groups, span, perPixelUp) {
  const perPixel = span / ((byId("scale-plot").clientWidth || 1100) - 80),
    placed = [];
  return groups.map((group) => {
    const names = [...new Set(group.map((p) => p.run.model))].reverse().map((name) => cut(name, 12)),
      y = Math.max(...group.map((p) => p.y + (p.half || 0))),
      box = {
        x: Math.log10(group[0].size) / perPixel,
        wide: 7 * Math.max(...names.map((name) => name.length)) + 4,
        low: y / perPixelUp + 5,
        tall: 15 * names.length,
      };
    const touches = (other) =>
      Math.abs(other.x - box.x) < (other.wide + box.wide) / 2 &&
      box.low < other.low + other.tall &&
      other.low < box.low + box.tall;
    while (placed.some(touches)) box.low += 15;
    placed.push(box);
    return {
      text: names.map(plotText).join("<br>"),
      x: Math.log10(group[0].size),
      y,
      yanchor: "bottom",
      yshift: box.low - y / perPixelUp,
      showarrow: false,
      font: { size: 12, color: css("--ink") },
    };
  });
}

// Ticks at the models' own sizes, leaving out those that would touch.
function thinned(ticks) {
  const gap =
      (Math.log10(ticks[ticks.length - 1]) - Math.log10(ticks[0])) /
      Math.max(3, (byId("scale-plot").clientWidth || 900) / 60),
    kept = [];
  for (const tick of ticks)
    if (!kept.length || Math.log10(tick) - Math.log10(kept[kept.length - 1]) >= gap) kept.push(tick);
  return kept;
}

function verdict(found, points, sizeTitle) {
  if (found)
    return (
      capital(found.sentence || "") ||
      (found.low === null
        ? "No threshold found."
        : `Threshold between ${count(found.low)} and ${count(found.high)}.`)
    );
  const models = new Set(points.map((p) => p.run.rank)).size;
  if (models < 2)
    return `One model measured: a threshold over size needs at least ${DATA.enough_sizes} sizes.`;
  return `No threshold search for this metric against ${sizeTitle.toLowerCase()} at this step.`;
}
