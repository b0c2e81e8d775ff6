// Transitions of the frequency structure: tints whose strength is how likely the move is under way, the small
// multiples that the page opens with, and a ribbon with a row per run.
const SLICES = 24;
const MOST_COLUMNS = 5;
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

// Tints behind curves, with the half as a line and turning points dotted.
function transitionTints(run, share = 1, xref = "x", yref = "paper") {
  const found = transitionOf(run.key);
  if (!found) return [];
  const span = yref === "paper" ? {} : { y0: 0, y1: 1 };
  const line = (x, dash, colour) => ({
    type: "line",
    xref,
    yref,
    x0: x,
    x1: x,
    y0: 0,
    y1: 1,
    layer: "below",
    line: { width: 1.2, dash, color: colour },
  });
  const shapes = [];
  for (const move of found.moves) {
    for (const [x0, x1, level] of underWay(move, run))
      shapes.push({
        ...shadedSpan(x0, x1, faded(moveColour(move), 0.2 * level * share)),
        xref,
        yref,
        ...span,
      });
    const half = middleOf(move.dates[1].between, run);
    if (half !== null && move.role) shapes.push(line(half, "solid", faded(moveColour(move), 0.75 * share)));
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

// --- small multiples ---
function drawMultiples() {
  const present = CURVES.filter((name) => METRIC.has(name)),
    models = DATA.models.filter(({ suite, model }) =>
      DATA.runs.some((run) => run.suite === suite && run.model === model && run.steps.length),
    );
  byId("multiples-box").hidden = !present.length || !models.length;
  if (byId("multiples-box").hidden) return;
  const node = byId("multiples"),
    wide = node.clientWidth || 1100,
    columns = wide < 500 ? 1 : Math.min(models.length, MOST_COLUMNS, Math.floor(wide / 165)),
    rows = Math.ceil(models.length / columns),
    height = 46 + rows * (rows > 1 ? 158 : 232);
  const colours = { spectral_entropy: css("--accent"), frequency_selectivity: css("--ink") };
  const ranges = Object.fromEntries(present.map((name) => [name, commonRange(name)]));
  const layout = { height, margin: { l: 40, r: 40, t: 26, b: 40 }, shapes: [], annotations: [] },
    traces = [];
  models.forEach((each, i) => {
    const runs = DATA.runs.filter((run) => run.suite === each.suite && run.model === each.model),
      column = i % columns,
      row = Math.floor(i / columns),
      gap = 0.12 / columns,
      cell = (1 - gap * (columns - 1)) / columns,
      left = column * (cell + gap),
      right = left + cell,
      top = 1 - row / rows - (row ? 0.09 / rows : 0),
      bottom = 1 - (row + 1) / rows + (row < rows - 1 ? 0.16 / rows : 0),
      x = `x${i ? i + 1 : ""}`,
      axis = trainingAxis(DATA.runs, (wide - 80) / columns / 1.15);
    const atBottom = row === rows - 1 || i + columns >= models.length;
    layout[`xaxis${i ? i + 1 : ""}`] = {
      ...axis,
      domain: [left, right],
      anchor: `y${2 * i ? 2 * i + 1 : ""}`,
      matches: i ? "x" : undefined,
      title: { text: "" },
      showticklabels: atBottom,
      ticks: atBottom ? "outside" : "",
      linecolor: css("--line"),
      showline: true,
      zeroline: false,
      showspikes: true,
      spikemode: "across",
      spikethickness: 1,
      spikedash: "dot",
      spikecolor: css("--soft"),
    };
    present.forEach((name, k) => {
      const number_ = 2 * i + k + 1,
        id = `yaxis${number_ > 1 ? number_ : ""}`,
        y = `y${number_ > 1 ? number_ : ""}`,
        outer = k === 0 ? column === 0 : column === columns - 1 || i === models.length - 1;
      layout[id] = {
        domain: [bottom, top],
        anchor: x,
        range: ranges[name],
        side: k ? "right" : "left",
        overlaying: k ? `y${2 * i ? 2 * i + 1 : ""}` : undefined,
        showgrid: false,
        zeroline: false,
        showline: false,
        nticks: 4,
        tickmode: "auto",
        fixedrange: true,
        showticklabels: outer,
        tickfont: { size: 11, color: colours[name] },
      };
      runs
        .filter((run) => run.series[name])
        .forEach((run) =>
          traces.push({
            ...lineOf(run, name),
            xaxis: x,
            yaxis: y,
            mode: "lines",
            line: { color: colours[name], width: runs.length > 1 ? 1.3 : 2 },
          }),
        );
    });
    for (const run of runs) layout.shapes.push(...multipleTints(run, 1 / runs.length, x, [bottom, top]));
    layout.annotations.push({
      text: `<b>${plotText(cut(each.model, 18))}</b>`,
      x: left,
      y: top,
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
      font: { size: 12.5, color: css("--ink") },
    });
  });
  byId("multiples-legend").replaceChildren(
    ...present.map((name) => {
      const swatch = el("i");
      swatch.style.setProperty("--swatch", colours[name]);
      return el("span", { class: "key" }, swatch, METRIC.get(name).title);
    }),
    ...[
      ["exploratory", "transition under way (fading: 90 % interval)"],
      ["specialisation", "way back"],
    ]
      .filter(([role]) => DATA.transitions.some((each) => each.moves.some((move) => move.role === role)))
      .map(([role, text]) => {
        const swatch = el("i", { class: "patch" });
        swatch.style.setProperty("--swatch", faded(phaseColour(role), 0.45));
        return el("span", { class: "key" }, swatch, text);
      }),
    el("span", { class: "key" }, "line: half way"),
    el("span", { class: "key" }, AXIS_TITLES[state.x]),
  );
  draw(
    "multiples",
    traces,
    layout,
    "Spectral entropy and frequency selectivity over training, a panel per model",
    () => seriesTable(DATA.runs, present),
  );
}

// The tints of one cell: shapes against the paper's height, between the cell's edges.
const multipleTints = (run, share, x, [bottom, top]) =>
  transitionTints(run, share, x).map((shape) => ({ ...shape, y0: bottom, y1: top }));

function commonRange(name) {
  const values = DATA.runs.flatMap((run) => run.series[name]?.mean || []).filter((value) => value !== null);
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)],
    pad = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - pad, high + pad];
}

// --- the ribbon ---
function drawRibbon() {
  const runs = visibleRuns().filter((run) => transitionOf(run.key));
  byId("ribbon-box").hidden = !runs.length;
  if (!runs.length) return;
  const shapes = [],
    hatched = { x: [], base: [], y: [] },
    points = [],
    turns = [],
    notes = [];
  runs.forEach((run, row) => {
    const found = transitionOf(run.key);
    for (const move of found.moves) {
      const stretches = underWay(move, run);
      for (const [x0, x1, level] of stretches)
        shapes.push({
          type: "rect",
          xref: "x",
          yref: "y",
          x0,
          x1,
          y0: row - 0.32,
          y1: row + 0.32,
          layer: "below",
          line: { width: 0 },
          fillcolor: faded(moveColour(move), (move.role ? 0.85 : 0.4) * level),
        });
      if (move.pace === "gradual" && stretches.length) {
        const from = middleOf(move.dates[0].between, run),
          to = middleOf(move.dates[2].between, run);
        hatched.base.push(from);
        hatched.x.push(to - from);
        hatched.y.push(row);
      }
      const half = middleOf(move.dates[1].between, run);
      if (half === null) continue;
      shapes.push({
        type: "line",
        xref: "x",
        yref: "y",
        x0: half,
        x1: half,
        y0: row - 0.42,
        y1: row + 0.42,
        line: { color: css("--ink"), width: move.role ? 2 : 1 },
      });
      points.push([half, row, moveText(move, run)]);
    }
    for (const turn of found.turns)
      turns.push([
        place(turn.step, run),
        row,
        `<b>${plotText(run.label)}</b>: turning point at step ${turn.step} (90 &#37;: ${turn.interval.join("–")})<br>${Math.round(100 * turn.recovered)} &#37; of the way back by the end (${turn.recovered_interval.map((share) => Math.round(100 * share)).join("–")} &#37;)`,
      ]);
    if (!found.moves.length)
      notes.push({
        text: plotText(found.note || "no transition beyond noise"),
        x: 0.5,
        xref: "paper",
        y: row,
        yref: "y",
        showarrow: false,
        font: { size: 12, color: css("--soft") },
      });
  });
  const narrow = byId("ribbon").clientWidth < 480;
  draw(
    "ribbon",
    [
      {
        type: "bar",
        orientation: "h",
        ...hatched,
        width: 0.64,
        hoverinfo: "skip",
        marker: {
          color: "rgba(0,0,0,0)",
          pattern: { shape: "/", fgcolor: css("--paper"), bgcolor: "rgba(0,0,0,0)", size: 7, solidity: 0.16 },
        },
      },
      marks(points, { size: 16, opacity: 0 }),
      marks(turns, { size: 8, symbol: "diamond-open", color: css("--ink"), line: { width: 1.6 } }),
    ],
    {
      height: 66 + 24 * runs.length,
      margin: { l: 52, r: 40, t: 8, b: 42 },
      shapes,
      annotations: [...axisBreak(runs), ...notes],
      xaxis: trainingAxis(DATA.runs, (byId("ribbon").clientWidth || 1100) - 92),
      yaxis: {
        range: [runs.length - 0.4, -0.6],
        tickvals: runs.map((_, row) => row),
        ticktext: runs.map((run) => plotText(cut(run.label, narrow ? 12 : 20))),
        showline: false,
        ticks: "",
        showgrid: false,
        fixedrange: true,
      },
    },
    "Transitions by model over training",
    () => movesTable(runs),
  );
}
