// All heads of one model beside its map: entropy against selectivity at the slider's step, and layers over training.
const PLANE = ["frequency_selectivity", "spectral_entropy"];
let plane = null;

async function drawHeadViews() {
  const { run, name } = selection.current;
  const held = await Promise.all(PLANE.map((metric) => mapOf(run, metric)));
  if (selection.current.run !== run || selection.current.name !== name) return;
  plane = held.every(Boolean) ? held : null;
  byId("plane-box").hidden = !plane;
  await drawPlane();
  await drawLayers();
}

const headsOf = ({ layers, heads }) =>
  Array.from({ length: layers * heads }, (_, i) => ({ layer: Math.floor(i / heads), head: i % heads }));

async function drawPlane() {
  if (!plane) return;
  const [x, y] = plane,
    { run, map } = x,
    t = Number(byId("step").value);
  const heads = headsOf(map)
    .map(({ layer, head }) => ({ layer, head, x: x.at(t, layer, head), y: y.at(t, layer, head) }))
    .filter((each) => each.x !== null && each.y !== null);
  const chosen = ({ layer, head }) => layer === selection.layer && head === selection.head;
  const kept = run.steps.map((_, i) => i).filter((i) => !run.suspects[i]);
  const path = {
    type: "scatter",
    mode: "lines",
    x: kept.map((i) => x.at(i, selection.layer, selection.head)),
    y: kept.map((i) => y.at(i, selection.layer, selection.head)),
    hoverinfo: "skip",
    line: { width: 1.2, color: faded("#d98a00", 0.7) },
  };
  const dots = {
    ...marks(
      heads.map((each) => [
        each.x,
        each.y,
        `layer ${each.layer}, head ${each.head}<br>${x.title} ${number(each.x, 3)}<br>${y.title} ${number(each.y, 3)}`,
      ]),
      {
        size: heads.map((each) => (chosen(each) ? 12 : 8)),
        symbol: run.suspects[t] ? "circle-open" : "circle",
        color: heads.map((each) => each.layer),
        colorscale: heatScale(),
        cmin: 0,
        cmax: Math.max(1, map.layers - 1),
        line: {
          width: heads.map((each) => (chosen(each) ? 2.4 : 0.6)),
          color: heads.map((each) => (chosen(each) ? "#d98a00" : css("--soft"))),
        },
        colorbar: {
          title: { text: "layer", side: "top" },
          thickness: 10,
          outlinewidth: 0,
          ...underModebar,
          dtick: Math.ceil(map.layers / 8),
        },
      },
    ),
    customdata: heads.map(({ layer, head }) => [layer, head]),
  };
  const axis = ({ scale, title, name }) => {
    const pad = (scale.high - scale.low) * 0.05;
    return {
      title: { text: `${title}${METRIC.get(name).unit ? ` (${METRIC.get(name).unit})` : ""}`, standoff: 6 },
      range: [scale.low - pad, scale.high + pad],
      nticks: 6,
      fixedrange: true,
    };
  };
  byId("plane-title").textContent = `Every head of ${run.label}, step ${run.steps[t]}`;
  await draw(
    "plane-plot",
    [path, dots],
    { height: 330, margin: { l: 52, r: 10, t: 30, b: 42 }, dragmode: false, xaxis: axis(x), yaxis: axis(y) },
    `Entropy against selectivity of every head at step ${run.steps[t]}`,
    () => [
      [...RUN_HEADS, "step", "layer", "head", ...PLANE],
      ...heads.map((each) => [...runCells(run), run.steps[t], each.layer, each.head, each.x, each.y]),
    ],
  );
  const plot = byId("plane-plot");
  if (plot.dataset.ready) return;
  plot.on("plotly_click", ({ points: [{ customdata }] }) => customdata && chooseHead(...customdata));
  plot.dataset.ready = "yes";
}

// The mean over the heads of each layer, in the colours of the map.
async function drawLayers() {
  const { run, map, scale, at, title } = selection.current;
  const mean = (t, layer) => {
    const values = Array.from({ length: map.heads }, (_, head) => at(t, layer, head)).filter(
      (value) => value !== null,
    );
    return run.suspects[t] || !values.length ? null : values.reduce((a, b) => a + b) / values.length;
  };
  const rows = Array.from({ length: map.layers }, (_, layer) => run.steps.map((_, t) => mean(t, layer)));
  const node = byId("layers-plot"),
    width = (node.clientWidth || 480) - 110,
    axis = trainingAxis([run], width),
    xs = run.steps.map((step) => place(step, run)),
    at0 = xs[Number(byId("step").value)];
  byId("layers-title").textContent = `${title} by layer over training, ${run.label}`;
  await draw(
    node,
    [
      {
        type: "heatmap",
        x: edges(xs),
        y: Array.from({ length: map.layers + 1 }, (_, layer) => layer - 0.5),
        z: rows,
        zmin: scale.low,
        zmax: scale.high,
        colorscale: heatScale(),
        text: rows.map((row, layer) =>
          row.map((value, t) => `layer ${layer}, step ${run.steps[t]}<br>${number(value, 3)}`),
        ),
        hovertemplate: "%{text}<extra></extra>",
        colorbar: { thickness: 10, outlinewidth: 0, ticklen: 3, tickfont: { size: 11.5 }, ...underModebar },
      },
    ],
    {
      height: 330,
      margin: { l: 46, r: 10, t: 30, b: 42 },
      dragmode: false,
      xaxis: { ...axis, range: [edges(xs)[0], edges(xs).at(-1)], fixedrange: true },
      yaxis: {
        title: { text: "layer", standoff: 6 },
        dtick: Math.ceil(map.layers / 12),
        showgrid: false,
        fixedrange: true,
      },
      annotations: axisBreak([run]),
      shapes: [
        {
          type: "line",
          xref: "x",
          yref: "paper",
          x0: at0,
          x1: at0,
          y0: 0,
          y1: 1,
          line: { color: "#d98a00", width: 1.6 },
        },
      ],
    },
    `${title} by layer over training`,
    () => [
      [...RUN_HEADS, "layer", "step", selection.current.name],
      ...rows.flatMap((row, layer) => row.map((value, t) => [...runCells(run), layer, run.steps[t], value])),
    ],
  );
  if (node.dataset.ready) return;
  node.on("plotly_click", ({ points: [{ pointIndex }] }) => chooseStep(pointIndex[1]));
  node.dataset.ready = "yes";
}
