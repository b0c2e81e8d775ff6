// The heads of a checkpoint in the plane of spectral entropy and frequency selectivity, and the mean of each
// layer at every checkpoint; both follow the choices of the map above.
const PLANE = ["spectral_entropy", "frequency_selectivity"];

async function mapOf(run, name) {
  const map = DATA.maps.runs[run.key],
    held = map?.metrics[name]
      ? { packed: map.metrics[name], scale: DATA.maps.scales[name] }
      : DATA.served && map && (await asked("map", { run: run.key, metric: name }));
  if (held === undefined) return undefined;
  if (!held?.packed) return null;
  const codes = await unpack(held.packed, map.layers * map.heads);
  const at = (t, layer, head) => valueOf(codes[(t * map.layers + layer) * map.heads + head], held.scale);
  return { run, map, name, at, scale: held.scale, title: METRIC.get(name)?.title || name };
}

let plane = null;
async function drawPlane() {
  const { run, map } = selection.current,
    pair = await Promise.all(PLANE.map((name) => mapOf(run, name)));
  if (pair.includes(undefined) || run.key !== state.run) return;
  byId("plane-box").hidden = pair.includes(null);
  plane = pair.includes(null) ? null : { run, map, pair };
  await movePlane();
}

// Every head at the slider's step, and the way of the selected one so far.
async function movePlane() {
  if (!plane) return;
  const { run, map, pair } = plane,
    t = Number(byId("step").value),
    { layer, head } = selection;
  const heads = headsOf(map),
    way = run.steps.map((_, s) => s).filter((s) => s <= t && !run.suspects[s]),
    [entropy, selectivity] = pair,
    suspect = run.suspects[t];
  const dots = marks(
    heads.map(([l, h]) => [
      entropy.at(t, l, h),
      selectivity.at(t, l, h),
      `layer ${l}, head ${h}<br>entropy ${number(entropy.at(t, l, h))}<br>selectivity ${number(selectivity.at(t, l, h))}`,
    ]),
    {
      size: map.layers * map.heads > 300 ? 5 : 8,
      symbol: suspect ? "circle-open" : "circle",
      color: heads.map(([l]) => (map.layers > 1 ? 0.3 + (0.7 * l) / (map.layers - 1) : 1)),
      colorscale: heatScale(),
      cmin: 0,
      cmax: 1,
      line: { width: 0.6, color: css("--soft") },
    },
    { customdata: heads, name: "heads" },
  );
  const line = {
    type: "scatter",
    mode: "lines",
    hoverinfo: "skip",
    name: "way",
    x: way.map((s) => entropy.at(s, layer, head)),
    y: way.map((s) => selectivity.at(s, layer, head)),
    line: { color: "#d98a00", width: 1.6 },
  };
  const chosen = {
    ...marks([[entropy.at(t, layer, head), selectivity.at(t, layer, head), ""]], {
      ...{ size: 13, symbol: "circle-open", color: "#d98a00", line: { width: 2.4, color: "#d98a00" } },
    }),
    ...{ hoverinfo: "skip", hovertemplate: undefined },
  };
  const range = ({ low, high }) => [low - 0.04 * (high - low), high + 0.04 * (high - low)];
  byId("plane-title").textContent =
    `Entropy and selectivity of every head, ${run.label}, step ${run.steps[t]}`;
  await draw(
    "plane-plot",
    [line, dots, chosen],
    {
      height: 360,
      margin: { l: 56, r: 12, t: 30, b: 46 },
      xaxis: {
        title: { text: "spectral entropy (nats)", standoff: 8 },
        range: range(entropy.scale),
        nticks: 7,
      },
      yaxis: {
        title: { text: "frequency selectivity", standoff: 6 },
        range: range(selectivity.scale),
        nticks: 7,
      },
    },
    `Spectral entropy and frequency selectivity of every head of ${run.label} at step ${run.steps[t]}`,
    {
      csv: planeTable,
      on: {
        plotly_click: ({ points: [{ customdata }] }) => customdata && chooseHead(...customdata),
      },
    },
  );
}

const headsOf = (map) =>
  Array.from({ length: map.layers * map.heads }, (_, i) => [Math.floor(i / map.heads), i % map.heads]);
const fourDigits = (value) => (value === null ? null : Number(value.toPrecision(4)));
const headTable = (run, map, fields) => [
  [...RUN_COLUMNS, "step", "layer", "head", ...fields.map((field) => field.name)],
  ...run.steps.flatMap((step, t) =>
    headsOf(map).map(([l, h]) => [
      ...runCells(run),
      step,
      l,
      h,
      ...fields.map((field) => fourDigits(field.at(t, l, h))),
    ]),
  ),
];
const planeTable = () => headTable(plane.run, plane.map, plane.pair);

// Means over the heads of each layer, a column per checkpoint.
async function drawLayers() {
  const { run, map, at, title, scale } = selection.current;
  byId("layers-title").textContent = `${title} by layer over training, ${run.label}`;
  const mean = (t, layer) => {
    const values = Array.from({ length: map.heads }, (_, h) => at(t, layer, h)).filter(
      (value) => value !== null,
    );
    return values.length ? values.reduce((a, b) => a + b) / values.length : null;
  };
  const layers = Array.from({ length: map.layers }, (_, layer) => layer),
    rows = layers.map((layer) => run.steps.map((_, t) => mean(t, layer))),
    every = Math.ceil(map.layers / 12),
    named = layers.filter((layer) => layer % every === 0);
  await drawStepMap("layers-plot", run, {
    rows,
    edges: [...layers, map.layers].map((layer) => layer - 0.5),
    names: layers.map((layer) => `layer ${layer}`),
    ticks: [named, named.map(String)],
    axis: "layer",
    format: (value) => number(value, 3),
    logarithmic: false,
    now: Number(byId("step").value),
    height: 360,
    label: `${title} by layer over training, ${run.label}`,
    on: { plotly_click: ({ points: [{ pointIndex }] }) => pointIndex && chooseStep(pointIndex[1]) },
  });
  byId("layers-note").textContent =
    `Mean over the ${plural(map.heads, "head")} of each layer; click a column to go to its step. Colours span the values shown${scale.clipped ? ", heads beyond the map's scale at its ends" : ""}.`;
}
