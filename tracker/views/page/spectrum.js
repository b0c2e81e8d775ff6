// Spectrograms over training: a column per checkpoint, of one layer, of all layers, or of the selected head.
const SPECTROGRAMS = {
  bands: { title: "Spectrum in 16 bands" },
  energy: { title: "Wavelet energy per scale" },
  wavelet: { title: "Wavelet entropy per scale" },
};

// Edges of the cells on the training axis: half way between neighbouring checkpoints.
function edges(xs) {
  if (xs.length === 1) return [xs[0] - 0.5, xs[0] + 0.5];
  const inner = xs.slice(1).map((x, i) => (x + xs[i]) / 2);
  return [2 * xs[0] - inner[0], ...inner, 2 * xs[xs.length - 1] - inner[inner.length - 1]];
}

// How power (of: spectrum) or energy (of: wavelet_energy) divides, of what the layer control names: how many
// parts there are, and (step, part) -> share or null. Undefined: another page has been asked for meanwhile.
async function sharesOf(run, of) {
  const map = DATA.maps.runs[run.key],
    wanted = { run: run.key, of };
  if (DATA.served && state.layer === "head" && selection) {
    const got = await asked("spectrum", { ...wanted, layer: selection.layer, head: selection.head });
    return got ? { parts: got.bands[0]?.length || 0, at: (t, part) => got.bands[t]?.[part] ?? null } : got;
  }
  const here =
    of === "spectrum"
      ? { packed: map?.spectrum, parts: DATA.maps.bands.count }
      : { packed: map?.energy, parts: map?.scales };
  const held = here.packed ? here : DATA.served && map ? await asked("spectrum", wanted) : null;
  if (!held?.packed) return held === undefined ? undefined : null;
  const { packed, parts } = held;
  const codes = await unpack(packed, map.layers * parts);
  const layers =
    Number(state.layer) < map.layers
      ? [Number(state.layer)]
      : Array.from({ length: map.layers }, (_, i) => i);
  return {
    parts,
    at: (t, part) => {
      const values = layers
        .map((layer) => valueOf(codes[(t * map.layers + layer) * parts + part], DATA.maps.bands))
        .filter((value) => value !== null);
      return values.length ? values.reduce((sum, value) => sum + 10 ** value, 0) / values.length : null;
    },
  };
}

// What one spectrogram draws: its rows from the bottom, their edges, names and values, and how values read.
async function spectrogram(run) {
  const percent = (of) => (value) => `${number(100 * value, 3)} &#37; of ${of}`;
  if (state.sp === "wavelet") {
    const names = DATA.metrics
      .map((metric) => metric.name)
      .filter((name) => /^wavelet_entropy_\d+$/.test(name) && run.series[name]);
    return names.length
      ? {
          rows: names.map((name) => run.series[name].mean),
          edges: names.map((_, i) => i - 0.5).concat(names.length - 0.5),
          names: names.map((_, i) => `scale ${i}`),
          ticks: [names.map((_, i) => i), names.map((_, i) => String(i))],
          axis: "scale (0: coarsest)",
          format: (value) => `${number(value, 4)} nats`,
          logarithmic: false,
          note: "Entropy of the squared wavelet coefficients of each scale, mean over heads; scale 0 is the coarsest.",
        }
      : null;
  }
  const shares = await sharesOf(run, state.sp === "bands" ? "spectrum" : "wavelet_energy");
  if (!shares) return shares;
  const count = shares.parts,
    parts = Array.from({ length: count }, (_, part) => part);
  const rows = parts.map((part) => run.steps.map((_, t) => shares.at(t, part)));
  if (state.sp === "bands") {
    return {
      rows,
      edges: [...parts, count].map((i) => i / count),
      names: parts.map((part) => `${number(part / count, 3)} to ${number((part + 1) / count, 3)} of Nyquist`),
      ticks: [
        [0, 0.25, 0.5, 0.75, 1],
        ["0", "0.25", "0.5", "0.75", "1"],
      ],
      axis: "frequency (1 = Nyquist)",
      format: percent("power"),
      logarithmic: true,
      note: `Share of power in ${count} equal bands; frequency 1 is Nyquist, a period of 2 tokens.`,
    };
  }
  return {
    rows,
    edges: [...parts, count].map((i) => i - 0.5),
    names: parts.map((part) => `scale ${part}: about ${octave(part, count)} of Nyquist`),
    ticks: [parts, parts.map((part) => octave(part, count))],
    axis: "frequency, about",
    format: percent("energy"),
    logarithmic: true,
    note: "Share of the energy (squared wavelet coefficients) in each scale, from the coarsest (lowest row) to the finest; rows of attention as they are, without a window.",
  };
}

// The frequencies of a scale of a dyadic wavelet, which splits them at a half, a quarter, an eighth ... of Nyquist.
function octave(part, count) {
  const below = (k) => (k >= count - 1 ? "1" : `1/${2 ** (count - 1 - k)}`);
  return part ? `${below(part - 1)} to ${below(part)}` : `0 to ${below(0)}`;
}

// Decades of a share of power, and where few of them are seen also their doubles and fives.
function colourTicks(low, high) {
  const within = (parts) =>
    [-4, -3, -2, -1, 0]
      .flatMap((k) => parts.map((part) => k + Math.log10(part)))
      .filter((x) => x >= low && x <= high);
  return within([1]).length > 2 ? within([1]) : within([1, 2, 5]);
}

const drawSpectrum = () => later("spectrum-plot", showSpectrum);

let turn = 0;
async function showSpectrum() {
  if (state.layer === "head" && !selection) return; // drawn again when there is one
  const run = RUNS.get(state.run),
    figure = byId("spectrum-plot").closest("figure");
  const mine = ++turn,
    shown = run && (await spectrogram(run));
  if (mine !== turn || (run && shown === undefined)) return;
  figure.hidden = !run;
  byId("layer").disabled = state.sp === "wavelet";
  if (!run) return;
  if (!shown) {
    const axes = { xaxis: { visible: false }, yaxis: { visible: false } };
    await draw(
      "spectrum-plot",
      [],
      { height: 256, annotations: [note("Not measured for this model")], ...axes },
      "No spectrum",
    );
    return;
  }
  const of =
    state.sp === "wavelet"
      ? "mean over heads"
      : state.layer === "mean"
        ? "mean over all layers"
        : state.layer === "head"
          ? `layer ${selection.layer}, head ${selection.head}`
          : `layer ${state.layer}`;
  const label = `${SPECTROGRAMS[state.sp].title} of ${run.label} over training, ${of}`;
  await drawStepMap("spectrum-plot", run, { ...shown, label, height: 264 });
  byId("spectrum-note").textContent =
    `${run.label}, ${of}. ${shown.note} Each column is one checkpoint${run.suspects.some(Boolean) ? "; suspect ones are left empty" : ""}.`;
}

const nowLine = (x) => ({
  ...{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1 },
  line: { color: css("--ink"), width: 1, dash: "dot" },
});

// A map with a column per checkpoint: `rows` from the bottom with their edges, names, ticks and how values read.
function drawStepMap(id, run, shown) {
  const level = (value) =>
    value === null || value === undefined
      ? null
      : shown.logarithmic
        ? Math.log10(Math.max(value, 1e-12))
        : value;
  // Columns of suspect checkpoints stay empty, with a hollow mark.
  const z = shown.rows.map((row) => row.map((value, t) => (run.suspects[t] ? null : level(value)))),
    flat = z.flat().filter((value) => value !== null),
    ticks = shown.logarithmic ? colourTicks(Math.min(...flat), Math.max(...flat)) : [];
  const width = (byId(id).clientWidth || 1100) - 130,
    axis = trainingAxis([run], width),
    places = run.steps.map((step) => place(step, run)),
    xs = edges(places);
  const doubted = run.steps.map((_, t) => t).filter((t) => run.suspects[t]),
    middle = (shown.edges[0] + shown.edges.at(-1)) / 2,
    text = (value, i, t) =>
      `step ${run.steps[t]}<br>${shown.names[i]}<br>${value === null ? "none" : shown.format(value)}`;
  const heat = {
    type: "heatmap",
    x: xs,
    y: shown.edges,
    z,
    zmin: Math.min(...flat),
    zmax: Math.max(...flat),
    colorscale: heatScale(),
    hoverongaps: false,
    text: shown.rows.map((row, i) => row.map((value, t) => text(value, i, t))),
    hovertemplate: "%{text}<extra></extra>",
    colorbar: {
      ...{ thickness: 10, outlinewidth: 0, ticklen: 3, len: 1, tickfont: { size: 11.5 } },
      ...(shown.logarithmic
        ? { tickvals: ticks, ticktext: ticks.map((k) => `${number(100 * 10 ** k)} &#37;`) }
        : {}),
    },
  };
  const hollow = marks(
    doubted.map((t) => [places[t], middle, `step ${run.steps[t]}<br>${wrapped(run.suspects[t])}`]),
    { symbol: "circle-open", size: 8, color: css("--soft"), line: { width: 1.6, color: css("--soft") } },
  );
  return draw(
    id,
    doubted.length ? [heat, hollow] : [heat],
    {
      height: shown.height,
      margin: { l: 66, r: 10, t: 34, b: 42 },
      shapes: shown.now === undefined ? [] : [nowLine(places[shown.now])],
      annotations: phaseMarks(run.key, axis, width).annotations.map((each) => ({ ...each, yshift: 4 })),
      dragmode: false,
      xaxis: zoomed ? axis : { ...axis, range: [xs[0], xs[xs.length - 1]] },
      yaxis: {
        title: { text: shown.axis, standoff: 6 },
        range: [shown.edges[0], shown.edges.at(-1)],
        tickvals: shown.ticks[0],
        ticktext: shown.ticks[1],
        showgrid: false,
        fixedrange: true,
      },
    },
    shown.label,
    {
      csv: () => [
        [...RUN_COLUMNS, "step", shown.axis, "value"],
        ...run.steps.flatMap((step, t) =>
          shown.names.map((name, i) => [...runCells(run), step, name, shown.rows[i][t]]),
        ),
      ],
      runs: [run],
      on: shown.on,
    },
  );
}
