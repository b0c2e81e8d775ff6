// Metric against training, four panels at first sight, with bands, phases and holes.
const modelKey = (run) => `${run.suite}/${run.model}`;
const listed = (text) =>
  text ? text.split("|").map((item) => item.replaceAll("%7C", "|").replaceAll("%25", "%")) : [];
const joined = (items) => items.map((item) => item.replaceAll("%", "%25").replaceAll("|", "%7C")).join("|");
const visibleRuns = () =>
  DATA.runs.filter(
    (run) => !listed(state.hide).includes(modelKey(run)) && !listed(state.seeds).includes(String(run.seed)),
  );

function drawChips() {
  const toggle = (field, value) => () => {
    const off = listed(state[field]);
    set({ [field]: joined(off.includes(value) ? off.filter((item) => item !== value) : [...off, value]) });
    drawChips();
    drawTrajectories();
  };
  const chip = (text, on, click, colour, dash) => {
    const swatch = el("i");
    if (colour) swatch.style.setProperty("--swatch", colour);
    if (dash) swatch.style.borderTopStyle = dash;
    const button = el(
      "button",
      { type: "button", class: "chip", "aria-pressed": on, title: text },
      swatch,
      el("b", {}, text),
    );
    button.addEventListener("click", click);
    return button;
  };
  const focused = document.activeElement?.title;
  const several = new Set(DATA.models.map((model) => model.suite)).size > 1;
  byId("chips").replaceChildren(
    ...DATA.models.map(({ suite, model }, rank) =>
      chip(
        several ? `${suite} ${model}` : model,
        !listed(state.hide).includes(`${suite}/${model}`),
        toggle("hide", `${suite}/${model}`),
        DATA.colours[theme()][rank],
      ),
    ),
  );
  const seeds = [...new Set(DATA.runs.map((run) => run.seed))].sort((a, b) => a - b);
  byId("seeds-box").hidden = seeds.length < 2;
  byId("seeds").replaceChildren(
    ...seeds.map((seed, i) =>
      chip(
        String(seed),
        !listed(state.seeds).includes(String(seed)),
        toggle("seeds", String(seed)),
        null,
        ["solid", "dashed", "dotted"][i] || "dashed",
      ),
    ),
  );
  [...document.querySelectorAll(".chip")].find((button) => focused && button.title === focused)?.focus();
}

function makePanels() {
  byId("panels").replaceChildren(
    ...firstPanels().map((_, i) => {
      const select = el("select", { id: `metric-${i}`, "aria-label": `Metric of panel ${i + 1}` });
      fillSelect(select, metricOptions(), "");
      select.addEventListener("change", () => {
        const chosen = state.m.split(",");
        chosen[i] = select.value;
        set({ m: chosen.join(",") });
        later(`panel-${i}`, () => drawPanel(i));
      });
      const enlarge = el("button", { type: "button", class: "quiet enlarge", id: `enlarge-${i}` }, "Enlarge");
      enlarge.addEventListener("click", () => {
        set({ big: state.big === String(i) ? "" : String(i) });
        drawTrajectories();
      });
      const plot = el("div", { class: "plot", id: `panel-${i}` });
      return el(
        "div",
        { class: "panel" },
        el("header", {}, select, el("span", { class: "unit" }), enlarge),
        plot,
      );
    }),
  );
}

function drawTrajectories() {
  const panels = [...byId("panels").children];
  const big = panels[state.big] ? Number(state.big) : -1;
  byId("panels").classList.toggle("one", big >= 0);
  panels.forEach((panel, i) => {
    panel.hidden = big >= 0 && big !== i;
    byId(`enlarge-${i}`).textContent = big === i ? "All panels" : "Enlarge";
    if (!panel.hidden) later(`panel-${i}`, () => drawPanel(i));
  });
  drawReading();
}

function drawPanel(i) {
  const name = state.m.split(",")[i],
    metric = METRIC.get(name),
    id = `panel-${i}`,
    node = byId(id);
  if (!metric) return;
  byId(`metric-${i}`).value = name;
  byId(`metric-${i}`).title = metric.meaning;
  node.parentNode.querySelector(".unit").textContent = metric.unit;
  const runs = visibleRuns().filter((run) => run.series[name]);
  const label = `${metric.title} over training, ${plural(runs.length, "run")}`;
  const height = state.big === String(i) ? 520 : 300;
  if (!runs.length) {
    return draw(
      id,
      [],
      {
        height,
        annotations: [note(visibleRuns().length ? "Not measured for these models" : "Choose a model above")],
        xaxis: { visible: false },
        yaxis: { visible: false },
      },
      label,
    );
  }
  const lines = runs.flatMap((run) => [lineOf(run, name), ...suspectMarks(run, name)]);
  const range = valueRange(runs, name);
  const width = (node.clientWidth || 560) - 128,
    axis = trainingAxis(runs, width);
  const marks = phaseMarks(state.phases, axis, width),
    events = eventMarks(runs);
  return draw(
    id,
    [...runs.flatMap((run) => bandOf(run, name)), ...lines, ...holeMarks(runs, range), ...events.traces],
    {
      height,
      uirevision: `${name} ${state.x}`,
      margin: { l: 52, r: 76, t: 26, b: 42 },
      xaxis: axis,
      yaxis: { range, nticks: 6 },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      shapes: [...marks.shapes, ...events.shapes],
      annotations: [...marks.annotations, ...axisBreak(runs), ...endLabels(runs, name, range, height - 68)],
    },
    label,
    {
      csv: () => seriesTable(runs, [name]),
      runs,
      on: { plotly_clickannotation: ({ annotation }) => annotation.name && isolate(annotation.name) },
    },
  );
}

// A click on the name of a line leaves that model alone; another click brings the others back.
function isolate(model) {
  const others = DATA.models
    .map(({ suite, model: name }) => `${suite}/${name}`)
    .filter((name) => name !== model);
  const alone = joined(others);
  set({ hide: state.hide === alone ? "" : alone });
  drawChips();
  drawTrajectories();
}

const limits = (series, i) => {
  if (state.band === "heads") return series.q25[i] === null ? null : [series.q25[i], series.q75[i]];
  if (state.band === "none" || series.half[i] === null) return null;
  return [series.mean[i] - series.half[i], series.mean[i] + series.half[i]];
};

function lineOf(run, name) {
  const series = run.series[name],
    colour = colourOf(run);
  // One checkpoint has no band: its interval is a bar.
  const only = run.steps.length === 1 && limits(series, 0);
  return {
    ...(only
      ? {
          error_y: {
            type: "data",
            symmetric: false,
            array: [only[1] - series.mean[0]],
            arrayminus: [series.mean[0] - only[0]],
            thickness: 1.4,
            width: 4,
          },
        }
      : {}),
    type: "scatter",
    mode: run.steps.length > 60 ? "lines" : "lines+markers",
    name: plotText(run.label),
    x: run.steps.map((step) => place(step, run)),
    y: series.mean.map((value, i) => (run.suspects[i] ? null : value)),
    connectgaps: true,
    meta: run.key,
    line: { color: colour, width: 2.1, dash: DASHES[run.order % DASHES.length] },
    marker: { color: colour, size: 5.5, symbol: symbolOf(run) },
    text: run.steps.map((step, i) => hoverText(run, name, step, i)),
    hovertemplate: "%{text}<extra></extra>",
  };
}

// Checkpoints whose weights may not match their names: hollow, beside the line, in no fit.
function suspectMarks(run, name) {
  const at = run.steps.map((_, i) => i).filter((i) => run.suspects[i] && run.series[name].mean[i] !== null);
  if (!at.length) return [];
  const colour = colourOf(run);
  return [
    marks(
      at.map((i) => [
        place(run.steps[i], run),
        run.series[name].mean[i],
        `${hoverText(run, name, run.steps[i], i)}<br>${wrapped(run.suspects[i])}`,
      ]),
      { color: colour, size: 7.5, symbol: `${symbolOf(run)}-open`, line: { width: 1.6, color: colour } },
    ),
  ];
}

function hoverText(run, name, step, i) {
  const series = run.series[name],
    parts = [`<b>${plotText(run.label)}</b>, step ${step}`];
  if (run.tokens[i] !== null) parts[0] += ` (${count(run.tokens[i])} tokens)`;
  const half = series.half[i] === null ? "" : ` ± ${number(series.half[i], 2)}`;
  parts.push(`${plotText(METRIC.get(name).title)} ${number(series.mean[i])}${half}`);
  if (series.q25[i] !== null)
    parts.push(
      `middle half of ${METRIC.get(name).level}s ${number(series.q25[i], 3)} to ${number(series.q75[i], 3)}`,
    );
  return parts.join("<br>");
}

function bandOf(run, name) {
  const series = run.series[name];
  const points = run.steps
    .map((step, i) => [place(step, run), run.suspects[i] ? null : limits(series, i)])
    .filter(([x, pair]) => x !== null && pair);
  if (points.length < 2) return [];
  return [
    {
      type: "scatter",
      mode: "lines",
      hoverinfo: "skip",
      fill: "toself",
      fillcolor: faded(colourOf(run), 0.16),
      line: { width: 0 },
      x: [...points.map(([x]) => x), ...points.map(([x]) => x).reverse()],
      y: [...points.map(([, pair]) => pair[1]), ...points.map(([, pair]) => pair[0]).reverse()],
    },
  ];
}

function valueRange(runs, name) {
  let low = Infinity,
    high = -Infinity;
  for (const run of runs) {
    const series = run.series[name];
    series.mean.forEach((value, i) => {
      for (const y of [value, ...(limits(series, i) || [])])
        if (y !== null) {
          low = Math.min(low, y);
          high = Math.max(high, y);
        }
    });
  }
  if (low > high) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low - pad, high + pad];
}

// Names at the line ends, moved apart so that none covers another.
function endLabels(runs, name, range, height) {
  const ends = new Map();
  for (const run of runs) {
    const last = run.series[name].mean.filter((value) => value !== null).pop();
    if (last !== undefined)
      ends.set(modelKey(run), { run, values: [...(ends.get(modelKey(run))?.values || []), last] });
  }
  const perPixel = (range[1] - range[0]) / height,
    gap = 13 * perPixel;
  const labels = [...ends.values()]
    .map(({ run, values }) => ({ run, y: values.reduce((a, b) => a + b) / values.length }))
    .sort((a, b) => a.y - b.y);
  for (let round = 0; round < 200; round++) {
    for (let i = 1; i < labels.length; i++) {
      const overlap = gap - (labels[i].y - labels[i - 1].y);
      if (overlap > 0) {
        labels[i].y += overlap / 2;
        labels[i - 1].y -= overlap / 2;
      }
    }
    for (const label of labels) label.y = Math.min(range[1], Math.max(range[0], label.y));
  }
  return labels.map(({ run, y }) => ({
    text: plotText(cut(run.model, 11)),
    name: modelKey(run),
    captureevents: true,
    hovertext: "Click to show this model alone, or all again",
    x: 1,
    xref: "paper",
    xanchor: "left",
    xshift: 4,
    y,
    yref: "y",
    showarrow: false,
    font: { size: 12, color: textColour(colourOf(run)) },
  }));
}

function holeMarks(runs, range) {
  const y = range[0] + (range[1] - range[0]) * 0.025,
    colours = [],
    points = [];
  for (const run of runs)
    for (const hole of DATA.holes) {
      if (hole.suite !== run.suite || hole.model !== run.model || hole.seed !== run.seed) continue;
      colours.push(colourOf(run));
      points.push([
        place(hole.step, run),
        y,
        `<b>${plotText(run.label)}</b>, step ${hole.step}: ${hole.status}<br>${wrapped(hole.reason || "no reason recorded")}`,
      ]);
    }
  return points.length
    ? [marks(points, { symbol: "x-thin", size: 8, line: { width: 1.8, color: colours } })]
    : [];
}

// Learning-rate warm-up and other known events of the suite: ticks on the floor of the panel.
function eventMarks(runs) {
  if (state.events !== "on") return { shapes: [], traces: [] };
  const shapes = [],
    points = [];
  DATA.landmarks.forEach((mark, i) => {
    const run = runs.find((candidate) => mark.runs.includes(candidate.key));
    if (!run) return;
    const y = 0.03 + 0.03 * (i % 4),
      x0 = place(mark.step_low, run),
      x1 = place(mark.step_high, run);
    if (x0 === null || x1 === null) return;
    shapes.push({
      type: "line",
      xref: "x",
      yref: "paper",
      x0,
      x1,
      y0: y,
      y1: y,
      line: { color: faded(css("--soft"), 0.7), width: 2 },
    });
    shapes.push({
      type: "line",
      xref: "x",
      yref: "paper",
      x0: (x0 + x1) / 2,
      x1: (x0 + x1) / 2,
      y0: 0,
      y1: y,
      line: { color: css("--soft"), width: 1, dash: "dot" },
    });
    points.push([
      (x0 + x1) / 2,
      y,
      `<b>${plotText(mark.name)}</b><br>step ${mark.step_low === mark.step_high ? mark.step_low : `${mark.step_low} to ${mark.step_high}`}<br>${wrapped(mark.source)}`,
    ]);
  });
  const traces = points.length
    ? [marks(points, { size: 6, color: css("--soft"), symbol: "diamond" }, { yaxis: "y2" })]
    : [];
  return { shapes, traces };
}

function drawReading() {
  const bands = {
    sequences: "mean ± 1.96 standard errors over sequences (none where a metric has no value per sequence)",
    heads: "middle half of the heads (of layers or sequences where a metric has no heads)",
    none: "none",
  };
  const found = phasesOf(state.phases),
    run = RUNS.get(state.phases);
  let text = `Shading around curves: ${bands[state.band]}. Larger models have ${theme() === "dark" ? "brighter" : "darker"} lines; dashes and markers distinguish seeds.`;
  if (found)
    text += ` Tint: the transition of ${run.label}, fading over the 90 % intervals of its onset and end; line: half way; dotted: turning point. ${found.sentence || ""}`;
  if (DATA.runs.some((each) => each.suspects.some(Boolean)))
    text += " Hollow marks: checkpoints that the audit found suspect; lines and fits leave them out.";
  byId("reading").textContent = typeset(text);
}
