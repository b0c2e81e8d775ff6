// Layer x head maps with a step slider, and one head's trajectory made from them.
const unpacked = new Map();
let selection = null;

// Undoes encode.pack: base64, zlib, differences along the steps.
async function unpack(text, cells) {
  if (unpacked.has(text)) return unpacked.get(text);
  const codes = await inflate(text);
  for (let i = cells; i < codes.length; i++) codes[i] += codes[i - cells];
  unpacked.set(text, codes);
  return codes;
}

const valueOf = (code, scale) =>
  code === DATA.maps.missing ? null : scale.low + (code / DATA.maps.levels) * (scale.high - scale.low || 1);

// A file holds the maps of the main metrics; a served page may ask the store for any metric of heads.
function mapMetrics() {
  const held = Object.keys(DATA.maps.scales);
  if (!DATA.served) return held;
  const names = DATA.metrics.filter((metric) => metric.level === "head").map((metric) => metric.name);
  return [
    ...DATA.map_metrics.filter((name) => names.includes(name)),
    ...names.filter((name) => !DATA.map_metrics.includes(name)),
  ];
}

async function currentMap() {
  const run = RUNS.get(state.run);
  return run && state.map ? mapOf(run, state.map) : null;
}

function fillHeadControls() {
  const label = (name) => METRIC.get(name)?.title || name,
    layers = DATA.maps.runs[state.run]?.layers || 0;
  fillSelect(
    byId("run"),
    DATA.runs.map((run) => ({ id: run.key, text: run.label })),
    state.run,
  );
  fillSelect(
    byId("map"),
    mapMetrics().map((name) => ({
      id: name,
      text: label(name),
      group: METRIC.get(name)?.group,
    })),
    state.map,
  );
  fillSelect(
    byId("sp"),
    Object.entries(SPECTROGRAMS).map(([id, { title }]) => ({ id, text: title })),
    state.sp,
  );
  const one = DATA.served ? [{ id: "head", text: "selected head" }] : [];
  if (!(state.layer === "mean" || (DATA.served && state.layer === "head") || Number(state.layer) < layers))
    set({ layer: "mean" });
  fillSelect(
    byId("layer"),
    [
      { id: "mean", text: "all layers" },
      ...one,
      ...Array.from({ length: layers }, (_, i) => ({ id: String(i), text: `layer ${i}` })),
    ],
    state.layer,
  );
}

// The slider's place: the step of the link where this run has it, else the nearest, else the last.
function stepIndex(run) {
  if (state.step === "") return run.steps.length - 1;
  const distances = run.steps.map((step) => Math.abs(step - Number(state.step)));
  return Math.max(0, distances.indexOf(Math.min(...distances)));
}

// The head that changes most, unless one was chosen that this model has.
function chosenHead(current) {
  const [layer, head] = state.head.split(".").map(Number);
  if (state.head && layer < current.map.layers && head < current.map.heads)
    return { layer, head, chosen: true };
  let best = { layer: 0, head: 0 },
    widest = -1;
  for (let l = 0; l < current.map.layers; l++)
    for (let h = 0; h < current.map.heads; h++) {
      const values = current.run.steps.map((_, t) => current.at(t, l, h)).filter((value) => value !== null);
      const width = values.length ? Math.max(...values) - Math.min(...values) : -1;
      if (width > widest) {
        widest = width;
        best = { layer: l, head: h };
      }
    }
  return { ...best, chosen: false };
}

const drawHeads = () => later("map-plot", showHeads);

async function showHeads() {
  const current = await currentMap();
  // Another choice may have been made while this one was fetched.
  if (current === undefined || (current && (current.run.key !== state.run || current.name !== state.map)))
    return;
  if (byId("heads").hidden === Boolean(current)) {
    byId("heads").hidden = !current;
    fillSections();
  }
  if (!current) {
    stopPlaying();
    return;
  }
  const slider = byId("step");
  slider.max = current.run.steps.length - 1;
  slider.value = stepIndex(current.run);
  selection = { current, ...chosenHead(current) };
  await drawMap();
  later("head-plot", drawHead);
  later("plane-plot", drawPlane);
  later("layers-plot", drawLayers);
  if (state.layer === "head") drawSpectrum();
}

async function drawMap() {
  const {
    current: { run, map, scale, at, title },
    layer,
    head,
  } = selection;
  const t = Number(byId("step").value),
    step = run.steps[t];
  const suspect = run.suspects[t];
  byId("step-name").textContent = String(step);
  byId("step").setAttribute("aria-valuetext", `step ${step}${suspect ? ", suspect" : ""}`);
  byId("map-title").textContent = `${title} by layer and head, ${run.label}, step ${step}`;
  byId("map-suspect").hidden = !suspect;
  byId("map-suspect").textContent = suspect
    ? `Hollow: the weights of this checkpoint may not match its name. ${capital(suspect)}.`
    : "";
  const left = DATA.maps.left_out.length ? ` Too large for this file: ${DATA.maps.left_out.join(", ")}.` : "";
  const more = DATA.served ? "" : " Other metrics: `tracker dashboard serve=true`.";
  byId("map-scale").replaceChildren(
    ...coded(
      `One colour scale for all steps and models, ${number(scale.low, 3)} to ${number(scale.high, 3)}${scale.clipped ? "; values beyond it take the end colours" : ""}.${left}${more}`,
    ),
  );
  const rows = Array.from({ length: map.layers }, (_, l) =>
    Array.from({ length: map.heads }, (_, h) => at(t, l, h)),
  );
  const trace = {
    type: "heatmap",
    z: rows,
    zmin: scale.low,
    zmax: scale.high,
    colorscale: heatScale(),
    xgap: 1,
    ygap: 1,
    hovertemplate: "layer %{y}, head %{x}<br>%{z:.4~g}<extra></extra>",
    colorbar: { thickness: 10, outlinewidth: 0, len: 1, ticklen: 3, tickfont: { size: 11.5 } },
  };
  const traces = suspect ? [{ ...trace, opacity: 0 }, hollowCells(rows, scale, map)] : [trace];
  const box = {
    type: "rect",
    x0: head - 0.5,
    x1: head + 0.5,
    y0: layer - 0.5,
    y1: layer + 0.5,
    line: { color: "#d98a00", width: 2.4 },
  };
  const ticks = (n) => ({ tick0: 0, dtick: Math.ceil(n / 16) });
  await draw(
    "map-plot",
    traces,
    {
      height: Math.min(560, Math.max(250, 110 + 26 * map.layers)),
      margin: { l: 46, r: 10, t: 34, b: 42 },
      shapes: [box],
      dragmode: false,
      xaxis: {
        title: { text: "head", standoff: 6 },
        ...ticks(map.heads),
        range: [-0.5, map.heads - 0.5],
        showgrid: false,
        showline: false,
        fixedrange: true,
      },
      yaxis: {
        title: { text: "layer", standoff: 6 },
        ...ticks(map.layers),
        range: [-0.5, map.layers - 0.5],
        showgrid: false,
        showline: false,
        fixedrange: true,
      },
    },
    `${title} by layer and head at step ${step}; selected: layer ${layer}, head ${head}`,
    {
      csv: () => headTable(run, map, [selection.current]),
      on: { plotly_click: ({ points: [{ x, y }] }) => chooseHead(y, x) },
    },
  );
}

// The cells of a suspect checkpoint are outlines in the colours that they would be filled with.
function hollowCells(rows, scale, map) {
  const cells = rows
    .flatMap((row, y) => row.map((value, x) => ({ x, y, value })))
    .filter(({ value }) => value !== null);
  const width = (byId("map-plot").clientWidth || 560) - 120,
    size = Math.max(3, Math.min(26, width / map.heads, 26) * 0.62);
  return {
    type: "scatter",
    mode: "markers",
    x: cells.map((c) => c.x),
    y: cells.map((c) => c.y),
    hoverinfo: "skip",
    marker: {
      symbol: "square-open",
      size,
      line: { width: Math.max(1.2, size / 7) },
      color: cells.map((c) => c.value),
      colorscale: heatScale(),
      cmin: scale.low,
      cmax: scale.high,
    },
  };
}

async function drawHead() {
  const {
    current: { run, map, scale, at, title },
    layer,
    head,
    chosen,
  } = selection;
  byId("head-title").textContent =
    `Layer ${layer}, head ${head}: ${title.toLowerCase()}${chosen || run.steps.length < 2 ? "" : " (changes most)"}`;
  const x = run.steps.map((step) => place(step, run));
  const others = {
    type: "scatter",
    mode: "lines",
    x: [],
    y: [],
    hoverinfo: "skip",
    connectgaps: false,
    line: { width: 1, color: faded(css("--soft"), 0.35) },
  };
  for (let h = 0; h < map.heads; h++)
    if (h !== head) {
      others.x.push(...x, null);
      others.y.push(...run.steps.map((_, t) => (run.suspects[t] ? null : at(t, layer, h))), null);
    }
  const kept = (t) => !run.suspects[t];
  const own = {
    type: "scatter",
    mode: run.steps.length > 60 ? "lines" : "lines+markers",
    x,
    y: run.steps.map((_, t) => (kept(t) ? at(t, layer, head) : null)),
    connectgaps: true,
    line: { width: 2.4, color: "#d98a00" },
    marker: { size: 6 },
    customdata: run.steps,
    hovertemplate: "step %{customdata}<br>%{y:.3~g}<extra></extra>",
  };
  const doubted = run.steps.map((_, t) => t).filter((t) => run.suspects[t]);
  const hollow = {
    type: "scatter",
    mode: "markers",
    x: doubted.map((t) => x[t]),
    y: doubted.map((t) => at(t, layer, head)),
    customdata: doubted.map((t) => run.steps[t]),
    marker: { size: 8, symbol: "circle-open", color: "#d98a00", line: { width: 1.8, color: "#d98a00" } },
    hovertemplate: "step %{customdata}, suspect<br>%{y:.3~g}<extra></extra>",
  };
  const width = (byId("head-plot").clientWidth || 480) - 60,
    axis = trainingAxis([run], width);
  const marks = phaseMarks(state.run, axis, width),
    at0 = place(run.steps[Number(byId("step").value)], run);
  const now = nowLine(at0);
  const pad = (scale.high - scale.low) * 0.04;
  await draw(
    "head-plot",
    doubted.length ? [others, own, hollow] : [others, own],
    {
      height: Math.min(560, Math.max(250, 110 + 26 * map.layers)),
      margin: { l: 50, r: 10, t: 34, b: 42 },
      shapes: [...marks.shapes, now],
      annotations: [...marks.annotations, ...axisBreak([run])],
      xaxis: axis,
      yaxis: { range: [scale.low - pad, scale.high + pad], nticks: 6 },
    },
    `${title} of layer ${layer}, head ${head} over training`,
    {
      csv: () => headTable(run, map, [selection.current]).filter((row, i) => !i || row[4] === layer),
      runs: [run],
    },
  );
}

// The line that marks the slider's step is the last shape; moving it is quicker than drawing the curves again.
async function moveNow() {
  const { run } = selection.current,
    at = place(run.steps[Number(byId("step").value)], run);
  for (const plot of [byId("head-plot"), byId("layers-plot")]) {
    if (!plot.layout) continue; // its turn comes
    const last = `shapes[${plot.layout.shapes.length - 1}]`;
    await Plotly.relayout(plot, { [`${last}.x0`]: at, [`${last}.x1`]: at });
  }
}

function chooseHead(layer, head) {
  set({ head: `${layer}.${head}` });
  Object.assign(selection, { layer, head, chosen: true });
  return drawMap()
    .then(drawHead)
    .then(movePlane)
    .then(() => (state.layer === "head" ? drawSpectrum() : null));
}

function moveHead(event) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
  if (!(event.key in moves) || !selection) return;
  event.preventDefault();
  const { map } = selection.current,
    [up, right] = moves[event.key];
  chooseHead(
    Math.min(map.layers - 1, Math.max(0, selection.layer + up)),
    Math.min(map.heads - 1, Math.max(0, selection.head + right)),
  );
}

// A slider sends more events than can be drawn: those that arrive meanwhile are drawn as one.
let drawing = null,
  another = false;
function chooseStep(index) {
  if (!selection) return null;
  byId("step").value = index;
  set({ step: String(selection.current.run.steps[index]) });
  another = true;
  const all = async () => {
    while (another) {
      another = false;
      await drawMap();
      await moveNow();
      await movePlane();
    }
  };
  drawing ??= all().finally(() => {
    drawing = null;
  });
  return drawing;
}

let player = null;
function stopPlaying() {
  clearInterval(player);
  player = null;
  byId("play").textContent = "Play";
  byId("play").setAttribute("aria-pressed", "false");
}

function play() {
  const last = () => Number(byId("step").max);
  if (player) {
    stopPlaying();
    return;
  }
  if (Number(byId("step").value) >= last()) chooseStep(0);
  byId("play").textContent = "Pause";
  byId("play").setAttribute("aria-pressed", "true");
  const pause = Math.max(60, Math.min(450, 9000 / (last() + 1)));
  player = setInterval(() => {
    const next = Number(byId("step").value) + 1;
    if (next > last()) stopPlaying();
    else chooseStep(next);
  }, pause);
}
