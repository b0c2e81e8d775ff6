// The training axis: log2 steps with step 0 at its own place left of 1, linear steps, or log tokens.
const ZERO = -1;

let TOKEN_FLOOR, HAS_TOKENS;

function takeAxis() {
  const seen = DATA.runs.flatMap((run) => run.tokens.filter((tokens) => tokens > 0));
  TOKEN_FLOOR = seen.length ? Math.log10(Math.min(...seen)) - 0.5 : 0;
  HAS_TOKENS = seen.length > 0;
}

function place(step, run) {
  if (state.x === "linear") return step;
  if (state.x === "log") return step === 0 ? ZERO : Math.log2(step);
  const tokens = tokensAt(step, run);
  if (state.x === "linear-tokens") return tokens;
  return tokens === null ? null : tokens === 0 ? TOKEN_FLOOR : Math.log10(tokens);
}
const isLinear = () => state.x.startsWith("linear");

// Tokens at a step that may lie between checkpoints: every suite sees a fixed number of tokens a step.
function tokensAt(step, run) {
  const index = run.steps.indexOf(step);
  if (index >= 0 && run.tokens[index] !== null) return run.tokens[index];
  const last = run.steps.length - 1;
  return run.tokens[last] === null || run.steps[last] === 0
    ? null
    : (step * run.tokens[last]) / run.steps[last];
}

function trainingAxis(runs, width, zoom = zoomed) {
  const all = runs.flatMap((run) => run.steps.map((step) => place(step, run))).filter((x) => x !== null);
  const low = Math.min(...all),
    high = Math.max(...all),
    pad = (high - low || 1) * 0.02;
  const axis = {
    range: [low - pad, high + pad],
    title: { text: AXIS_TITLES[state.x], standoff: 8 },
    showgrid: false,
  };
  if (zoom) return { ...axis, range: zoom, ...stepTicks(runs, width, zoom) };
  if (isLinear()) return { ...axis, ...linearTicks(high, width) };
  const zero = runs.some((run) => run.steps.includes(0)),
    text = (x) => count(Number((state.x === "log" ? 2 ** x : 10 ** x).toPrecision(3))),
    decade = state.x === "log" ? Math.log2(10) : 1,
    perLabel = ((high - low || 1) / width) * 46;
  const first = zero && state.x === "tokens" ? low + 0.3 : state.x === "log" ? 0 : low;
  const decades = [];
  for (let k = Math.ceil(first / decade - 1e-9); k * decade <= high + 1e-9; k++) decades.push(k * decade);
  // The last step is always named, and decades as far as there is room beside it.
  const named = [high];
  for (const x of decades.reverse()) if (named[named.length - 1] - x >= perLabel) named.push(x);
  const ticks = named.filter((x) => x >= first - 1e-9).reverse();
  if (zero) ticks.unshift(state.x === "log" ? ZERO : TOKEN_FLOOR);
  return { ...axis, tickvals: ticks, ticktext: ticks.map((x, i) => (zero && i === 0 ? "0" : text(x))) };
}

// Zoomed in, the checkpoints themselves, as far as there is room beside each other.
function stepTicks(runs, width, [low, high]) {
  const places = new Map();
  for (const run of runs)
    run.steps.forEach((step, i) => {
      const x = place(step, run);
      if (x !== null && x >= low && x <= high)
        places.set(x, state.x.endsWith("tokens") ? run.tokens[i] : step);
    });
  const kept = [];
  for (const x of [...places.keys()].sort((a, b) => a - b))
    if (!kept.length || x - kept.at(-1) >= ((high - low) / width) * 46) kept.push(x);
  return { tickvals: kept, ticktext: kept.map((x) => count(places.get(x))) };
}
const AXIS_TITLES = {
  log: "training step (log)",
  linear: "training step",
  tokens: "tokens seen (log)",
  "linear-tokens": "tokens seen",
};

// Round numbers with the magnitudes of `count`, since Plotly's own G is not a billion's B.
function linearTicks(high, width) {
  const wish = (high || 1) / Math.max(2, width / 70),
    base = 10 ** Math.floor(Math.log10(wish));
  const stride = [1, 2, 5, 10].map((k) => k * base).find((k) => k >= wish) || 10 * base;
  const ticks = Array.from({ length: Math.floor(high / stride) + 1 }, (_, i) =>
    Number((i * stride).toPrecision(6)),
  );
  return { tickvals: ticks, ticktext: ticks.map(count) };
}

// Two strokes on the axis between step 0 and step 1 say that the axis is broken there.
function axisBreak(runs) {
  if (isLinear() || !runs.some((run) => run.steps.includes(0))) return [];
  const at = state.x === "log" ? -0.5 : TOKEN_FLOOR + 0.25;
  return [
    {
      text: "//",
      x: at,
      y: 0,
      xref: "x",
      yref: "paper",
      showarrow: false,
      yanchor: "middle",
      font: { size: 12 },
      bgcolor: css("--paper"),
      borderpad: 0,
    },
  ];
}

// A shaded interval of the horizontal axis, over the whole height of a plot and behind its lines.
function shadedSpan(x0, x1, fillcolor) {
  const span = { type: "rect", xref: "x", yref: "paper", x0, x1, y0: 0, y1: 1 };
  return { ...span, layer: "below", line: { width: 0 }, fillcolor };
}

// Behind the curves of several models a tint is paler than behind those of its own.
const BEHIND_MANY = 0.45;

// Tints of one run's transitions and the names of its phases where they fit; of an analysis without
// transitions the phases themselves.
function phaseMarks(key, axis, width) {
  const run = RUNS.get(key),
    found = phasesOf(key);
  if (!run || !found) return { shapes: [], annotations: [] };
  const shapes = transitionTints(run, BEHIND_MANY),
    annotations = [],
    perPixel = (axis.range[1] - axis.range[0]) / width;
  for (const phase of transitionOf(key) ? [] : found.phases) {
    const x0 = place(phase.first_step, run),
      x1 = place(phase.last_step, run);
    if (x0 === null || x1 === null || !phase.label) continue;
    shapes.push(shadedSpan(x0, x1, faded(phaseColour(phase.label), phase.label === "initial" ? 0.09 : 0.14)));
  }
  for (const { label, first_step, last_step } of found.spans) {
    const x0 = place(first_step, run),
      x1 = place(last_step, run);
    if (x0 === null || x1 === null || (x1 - x0) / perPixel < 6 * label.length - 8) continue;
    annotations.push({
      text: plotText(label),
      x: (x0 + x1) / 2,
      y: 1,
      xref: "x",
      yref: "paper",
      yanchor: "bottom",
      showarrow: false,
      font: { size: 11.5, color: css("--soft") },
    });
  }
  return { shapes, annotations };
}
