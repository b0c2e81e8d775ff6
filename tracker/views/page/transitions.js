// Transitions of the frequency structure: tints whose strength is how likely the move is under way, the small
// multiples that the page opens with, and a ribbon with a row per run.
const SLICES = 24;
const CURVES = ["spectral_entropy", "frequency_selectivity"];

const transitionOf = (key) => TRANSITIONS.get(key);
const moveColour = (move) => phaseColour(move.role || "initial");
const middleOf = ([low, high], run) => {
  const [a, b] = [place(low, run), place(high, run)];
  return a === null || b === null ? null : (a + b) / 2;
};

// Stretches [x0, x1, strength] of a move: its strongest is 1; it fades over the 90 % intervals of onset and end.
function underWay(move, run) {
  const [from, begun] = move.dates[0].interval.map((step) => place(step, run)),
    [ending, to] = move.dates[2].interval.map((step) => place(step, run));
  if ([from, begun, ending, to].includes(null) || to <= from) return [];
  const share = (x, a, b) => (b <= a ? Number(x >= a) : Math.min(1, Math.max(0, (x - a) / (b - a))));
  const width = (to - from) / SLICES;
  const strengths = Array.from({ length: SLICES }, (_, i) => {
    const x = from + (i + 0.5) * width;
    return share(x, from, begun) * (move.open_end ? 1 : 1 - share(x, ending, to));
  });
  const most = Math.max(...strengths, 1e-9),
    found = [];
  strengths.forEach((strength, i) => {
    const level = Math.round((20 * strength) / most) / 20,
      last = found[found.length - 1];
    if (last && last[2] === level) last[1] = from + (i + 1) * width;
    else found.push([from + i * width, from + (i + 1) * width, level]);
  });
  return found.filter(([, , level]) => level > 0);
}

// Panels and ribbon show a move in one strength; moves without a name are paler.
const tintOf = (move, level, share = 1) => faded(moveColour(move), (move.role ? 0.42 : 0.24) * level * share);

// Tints behind curves, with the half as a line and turning points dotted. `place_` says where: axes, y0 and y1.
function transitionTints(run, share = 1, place_ = { xref: "x", yref: "paper", y0: 0, y1: 1 }) {
  const found = transitionOf(run.key);
  if (!found) return [];
  const line = (x, dash, color) => ({
    ...{ type: "line", ...place_, x0: x, x1: x, layer: "below" },
    line: { width: 1.2, dash, color },
  });
  const shapes = [];
  for (const move of found.moves) {
    for (const [x0, x1, level] of underWay(move, run))
      shapes.push({ ...shadedSpan(x0, x1, tintOf(move, level, share)), ...place_ });
    const half = middleOf(move.dates[1].between, run);
    if (half !== null && move.role) shapes.push(line(half, "solid", faded(css("--ink"), 0.75 * share)));
  }
  for (const turn of found.turns) {
    const x = place(turn.step, run);
    if (x !== null) shapes.push(line(x, "dot", faded(css("--soft"), 0.8 * share)));
  }
  return shapes;
}

const gapText = ([low, high]) => `between ${low} and ${high}`;
function moveText(move, run) {
  const way = move.levels
    .map(({ title, start, finish }) => `${plotText(title)} ${number(start, 3)} → ${number(finish, 3)}`)
    .join("<br>");
  const dates = ["onset", "half", "end"]
    .map(
      (name, i) =>
        `${name} ${gapText(move.dates[i].between)} (90 &#37;: ${move.dates[i].interval.join("–")})`,
    )
    .join("<br>");
  const pace = move.pace === "unclear" ? "" : `, ${move.pace}`;
  return `<b>${plotText(run.label)}</b>: ${plotText(move.role || "move")}${pace}<br>${dates}${way ? `<br>${way}` : ""}`;
}

function turnText({ step, interval, recovered, recovered_interval }, run) {
  const percent = (share) => Math.round(100 * share);
  return `<b>${plotText(run.label)}</b>: turning point at step ${step} (90 &#37;: ${interval.join("–")})<br>${percent(recovered)} &#37; of the way back by the end (${recovered_interval.map(percent).join("–")} &#37;)`;
}

// --- small multiples: a panel per model, above each other and above the ribbon, so that one step has one place ---
const FRAME = { l: 78, r: 44 };
const frameWidth = (node) => (node.clientWidth || 1100) - FRAME.l - FRAME.r;

function drawMultiples() {
  const present = CURVES.filter((name) => METRIC.has(name)),
    models = DATA.models.filter((each) => runsOfModel(each).length);
  byId("multiples-box").hidden = !present.length || !models.length;
  if (!byId("multiples-box").hidden) later("multiples", () => plotMultiples(present, models));
}

function plotMultiples(present, models) {
  const alone = !DATA.transitions.length,
    tall = models.length <= 4 ? 112 : models.length <= 6 ? 88 : 68,
    margin = { ...FRAME, t: 22, b: alone ? 42 : 12 },
    colours = { spectral_entropy: css("--accent"), frequency_selectivity: css("--ink") };
  const figure = {
    traces: [],
    layout: {
      height: tall * models.length + margin.t + margin.b,
      margin,
      shapes: [],
      annotations: [],
      xaxis: {
        ...trainingAxis(DATA.runs, frameWidth(byId("multiples"))),
        ...{ showgrid: true, showticklabels: alone, anchor: "free", position: 0, automargin: false },
        ...(alone ? {} : { title: { text: "" }, ticks: "" }),
      },
    },
  };
  models.forEach((each, i) => {
    const top = 1 - i / models.length,
      bottom = Math.max(0, top - (tall - (tall < 80 ? 16 : 20)) / (tall * models.length));
    present.forEach((name, k) =>
      addCurves(
        figure,
        each,
        name,
        2 * i + k + 1,
        { domain: [bottom, top], nticks: tall < 80 ? 3 : 4 },
        colours[name],
      ),
    );
    addTints(figure.layout, each, bottom, top);
  });
  drawMultiplesLegend(present, colours);
  const label = "Spectral entropy and frequency selectivity over training, a panel per model",
    csv = () => seriesTable(DATA.runs, present);
  return draw("multiples", figure.traces, figure.layout, label, { csv, runs: DATA.runs });
}

const runsOfModel = ({ suite, model }) =>
  DATA.runs.filter((run) => run.suite === suite && run.model === model);

// One metric of one model, on a vertical axis of its own: odd ones on the left, even ones over them on the right.
function addCurves({ traces, layout }, model, name, id, place_, colour) {
  const suffix = id > 1 ? id : "",
    runs = runsOfModel(model);
  layout[`yaxis${suffix}`] = {
    ...{ ...place_, range: commonRange(name), tickmode: "auto", exponentformat: "power", fixedrange: true },
    ...{ showgrid: false, showline: false, tickfont: { size: 11, color: colour } },
    ...(id % 2 ? {} : { side: "right", overlaying: `y${id === 2 ? "" : id - 1}` }),
  };
  const line = { color: colour, width: runs.length > 1 ? 1.3 : 2 };
  for (const run of runs.filter((each) => each.series[name]))
    traces.push({ ...lineOf(run, name), yaxis: `y${suffix}`, mode: "lines", line });
}

function addTints(layout, each, y0, y1) {
  const runs = runsOfModel(each),
    several = new Set(DATA.models.map(({ suite }) => suite)).size > 1,
    name = several ? `${each.suite} ${each.model}` : each.model;
  for (const run of runs)
    layout.shapes.push(...transitionTints(run, 1 / runs.length, { xref: "x", yref: "paper", y0, y1 }));
  layout.annotations.push({
    text: `<b>${plotText(cut(name, 32))}</b>`,
    ...{ x: 0, y: y1, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false },
    font: { size: 12.5, color: css("--ink") },
  });
}

function swatchKey(text, colour, patch) {
  const swatch = el("i", patch ? { class: "patch" } : {});
  swatch.style.setProperty("--swatch", colour);
  return el("span", { class: "key" }, swatch, text);
}

function drawMultiplesLegend(present, colours) {
  const moves = DATA.transitions.flatMap((each) => each.moves);
  byId("multiples-legend").replaceChildren(
    ...present.map((name, k) =>
      swatchKey(`${METRIC.get(name).title} (${k ? "right" : "left"})`, colours[name]),
    ),
    ...Object.entries({
      exploratory: "exploratory transition",
      specialisation: "specialisation",
      "": "other move",
    })
      .filter(([role]) => moves.some((move) => move.role === role))
      .map(([role, text]) => swatchKey(text, tintOf({ role }, 1), true)),
  );
}

function commonRange(name) {
  const values = DATA.runs.flatMap((run) => run.series[name]?.mean || []).filter((value) => value !== null);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)],
    pad = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - pad, high + pad];
}

// --- the ribbon: a row per model, its seeds as lanes of the row ---
function drawRibbon() {
  const runs = DATA.runs.filter((run) => transitionOf(run.key)),
    models = DATA.models.filter((each) => runs.some((run) => modelKey(run) === modelKey(each))),
    most = Math.max(1, ...models.map((each) => runsOfModel(each).length));
  byId("ribbon-box").hidden = !runs.length;
  if (runs.length) later("ribbon", () => plotRibbon(runs, models, most));
}

function plotRibbon(runs, models, most) {
  const ribbon = {
    shapes: [],
    hatched: { x: [], base: [], y: [], width: [] },
    points: [],
    turns: [],
    notes: [],
  };
  models.forEach((each, row) => {
    const seeds = runs.filter((run) => modelKey(run) === modelKey(each)),
      lane = (seeds.length > 1 ? 0.66 : 0.8) / seeds.length;
    seeds.forEach((run, i) => addLane(ribbon, run, row + (i - (seeds.length - 1) / 2) * lane, lane));
  });
  const clear = "rgba(0,0,0,0)",
    pattern = { shape: "/", fgcolor: css("--paper"), bgcolor: clear, size: 7, solidity: 0.16 },
    hatches = { type: "bar", orientation: "h", hoverinfo: "skip", marker: { color: clear, pattern } };
  return draw(
    "ribbon",
    [
      { ...hatches, ...ribbon.hatched },
      marks(ribbon.points, { size: 16, opacity: 0 }),
      marks(ribbon.turns, { size: 8, symbol: "diamond-open", color: css("--ink"), line: { width: 1.6 } }),
    ],
    {
      height: 66 + Math.max(24, 12 * most + 4) * models.length,
      margin: { ...FRAME, t: 4, b: 42 },
      shapes: ribbon.shapes,
      annotations: [...axisBreak(runs), ...ribbon.notes],
      xaxis: { ...trainingAxis(DATA.runs, frameWidth(byId("ribbon"))), automargin: false },
      yaxis: {
        range: [models.length - 0.4, -0.6],
        tickvals: models.map((_, row) => row),
        ticktext: models.map(({ model }) => plotText(cut(model, 11))),
        ...{ automargin: false, showline: false, ticks: "", showgrid: false, fixedrange: true },
      },
    },
    "Transitions by model over training",
    { csv: () => transitionTable(runs), runs: DATA.runs },
  );
}

// One run of the ribbon, `lane` high around `row`.
function addLane({ shapes, hatched, points, turns, notes }, run, row, lane) {
  const found = transitionOf(run.key),
    at = { xref: "x", yref: "y" };
  for (const move of found.moves) {
    const stretches = underWay(move, run),
      [from, half, to] = move.dates.map(({ between }) => middleOf(between, run));
    for (const [x0, x1, level] of stretches)
      shapes.push({
        ...shadedSpan(x0, x1, tintOf(move, level)),
        ...at,
        y0: row - 0.4 * lane,
        y1: row + 0.4 * lane,
      });
    if (move.pace === "gradual" && stretches.length) {
      hatched.base.push(from);
      hatched.x.push(to - from);
      hatched.y.push(row);
      hatched.width.push(0.8 * lane);
    }
    if (half === null) continue;
    const line = { color: css("--ink"), width: move.role ? 2 : 1 };
    shapes.push({ type: "line", ...at, x0: half, x1: half, y0: row - lane / 2, y1: row + lane / 2, line });
    points.push([half, row, moveText(move, run)]);
  }
  for (const turn of found.turns) turns.push([place(turn.step, run), row, turnText(turn, run)]);
  if (!found.moves.length)
    notes.push({
      text: plotText(found.note || "no transition beyond noise"),
      ...{ x: 0.5, xref: "paper", y: row, yref: "y", showarrow: false },
      font: { size: lane < 0.5 ? 10 : 12, color: css("--soft") },
    });
}

function transitionTable(runs) {
  const dates = ["onset", "half", "end"].flatMap((name) =>
    ["low", "high", "earliest_90", "latest_90"].map((end) => `${name}_${end}`),
  );
  return [
    [...RUN_COLUMNS, "move", "pace", ...dates],
    ...runs.flatMap((run) =>
      transitionOf(run.key).moves.map((move) => [
        ...runCells(run),
        move.role || "other",
        move.pace,
        ...move.dates.flatMap(({ between, interval }) => [...between, ...interval]),
      ]),
    ),
  ];
}
