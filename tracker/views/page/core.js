// State, its place in the URL, small helpers. All text enters the page by textContent; text for Plotly,
// which reads a little HTML, goes through plotText.
const byId = (id) => document.getElementById(id);
let DATA, METRIC, RUNS, PHASES, TRANSITIONS, DEFAULTS, state;

// The data, and what is derived from it. A served page takes new data while it is open.
function take(data) {
  DATA = data;
  METRIC = new Map(DATA.metrics.map((metric) => [metric.name, metric]));
  RUNS = new Map(DATA.runs.map((run) => [run.key, run]));
  PHASES = new Map(DATA.phases.map((entry) => [entry.key, entry]));
  TRANSITIONS = new Map(DATA.transitions.map((entry) => [entry.key, entry]));
  DEFAULTS = {
    m: firstPanels().join(","),
    x: "log",
    band: "sequences",
    phases: DATA.shown.phases,
    hide: "",
    seeds: "",
    big: "",
    events: "on",
    run: DATA.shown.run,
    map: mapMetrics()[0] || "",
    step: "",
    head: "",
    layer: "mean",
    sp: "bands",
    why: DATA.shown.lead_lag,
    sm: firstPanels()[0] || "",
    sx: "params_non_embedding",
    ss: "last",
    paper: "on",
    role: firstRole(),
    eg: "0",
    em: "spectral_entropy",
    theme: "",
  };
  takeAxis();
}

function firstPanels() {
  const others = DATA.metrics.map((metric) => metric.name).filter((name) => !DATA.panels.includes(name));
  return [...DATA.panels, ...others].slice(0, 4);
}

const phasesOf = (key) => PHASES.get(key);

// Reads the URL's hash. A value that this page does not know falls back to the default: links outlive stores.
function readState() {
  state = { ...DEFAULTS };
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (Object.hasOwn(DEFAULTS, key)) state[key] = value;
  }
  const known = (key, values) => {
    if (!values.includes(state[key])) state[key] = DEFAULTS[key];
  };
  const names = DATA.metrics.map((metric) => metric.name);
  const chosen = state.m.split(",");
  if (chosen.length !== firstPanels().length || !chosen.every((name) => names.includes(name)))
    state.m = DEFAULTS.m;
  known("x", Object.keys(AXIS_TITLES));
  known("band", ["sequences", "heads", "none"]);
  known("phases", ["none", ...RUNS.keys()]);
  known("run", [...RUNS.keys()]);
  known("map", mapMetrics());
  known("sp", Object.keys(SPECTROGRAMS));
  known("why", [...RUNS.keys()]);
  known("events", ["on", "off"]);
  known("paper", ["on", "off"]);
  known("sm", names);
  known(
    "sx",
    DATA.axes.map((axis) => axis.name),
  );
  known("role", [...RUNS.keys()]);
  known(
    "eg",
    DATA.encodings.map((_, i) => String(i)),
  );
  known("em", names);
  known("big", ["", ...firstPanels().keys()].map(String));
  known("theme", ["", "light", "dark"]);
  if (!/^\d+$/.test(state.step)) state.step = "";
}

let writing = null;
function set(changes) {
  Object.assign(state, changes);
  // Browsers refuse more than a few address changes a second, which a slider easily makes.
  clearTimeout(writing);
  writing = setTimeout(writeHash, 200);
}

function writeHash() {
  clearTimeout(writing);
  const hash = new URLSearchParams();
  for (const key in DEFAULTS) if (state[key] !== DEFAULTS[key]) hash.set(key, state[key]);
  const text = hash.toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

// --- elements ---
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

function fillSelect(select, options, value) {
  const groups = new Map(),
    wanted = JSON.stringify(options);
  // An open list stays open when new data brings the same choices.
  if (select.dataset.options === wanted) {
    select.value = value;
    return;
  }
  select.dataset.options = wanted;
  select.replaceChildren();
  for (const { id, text, group } of options) {
    let parent = select;
    if (group) {
      if (!groups.has(group)) {
        groups.set(group, el("optgroup", { label: group }));
        select.append(groups.get(group));
      }
      parent = groups.get(group);
    }
    parent.append(el("option", { value: id }, text));
  }
  select.value = value;
}

const metricOptions = () => DATA.metrics.map((m) => ({ id: m.name, text: m.title, group: m.group }));

function fillTable(table, heads, rows) {
  const row = (cells, tag) =>
    el("tr", {}, ...cells.map((cell, i) => el(tag, heads[i].number ? { class: "number" } : {}, cell ?? "–")));
  table.replaceChildren(
    el(
      "thead",
      {},
      row(
        heads.map((head) => head.title),
        "th",
      ),
    ),
    el("tbody", {}, ...rows.map((cells) => row(cells, "td"))),
  );
}

// --- text ---
// Sentences as a terminal prints them, with the signs that a page has.
const typeset = (text) =>
  String(text)
    .replaceAll(" -> ", " → ")
    .replaceAll("<=", "≤")
    .replaceAll(">=", "≥")
    .replace(/(\d)%/g, "$1 %");
// Parts in backticks become code.
const coded = (text) =>
  typeset(text)
    .split("`")
    .map((part, i) => (i % 2 ? el("code", {}, part) : part));
const SIGNS = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "%": "&#37;", "{": "&#123;", $: "&#36;" };
const plotText = (text) => String(text).replace(/[&<>%{$]/g, (sign) => SIGNS[sign]);

function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6))
    return value.toExponential(digits - 2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

function count(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, sign] of [
    [1e12, "T"],
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (value >= size) return Number((value / size).toPrecision(3)) + sign;
  }
  return String(value);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

// --- packed bytes ---
async function inflate(text) {
  const signs = atob(text),
    raw = new Uint8Array(signs.length);
  for (let i = 0; i < raw.length; i++) raw[i] = signs.charCodeAt(i);
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Plotly travels compressed; the page's policy knows the digest of what it says and runs nothing else.
async function loadPlotly() {
  const script = el("script");
  script.textContent = new TextDecoder().decode(await inflate(byId("plotly").textContent));
  document.head.append(script);
}

// --- theme and plots ---
const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const theme = () => (printing ? "light" : state.theme || (darkSystem.matches ? "dark" : "light"));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colourOf = (run) => DATA.colours[theme()][run.rank];
const heatScale = () => DATA.heat[theme()].map((colour, i, all) => [i / (all.length - 1), colour]);
const phaseColour = (label) => (DATA.phase_colours[label] || DATA.phase_colours.initial)[theme()];
const faded = (colour, alpha) => {
  const n = parseInt(colour.slice(1), 16);
  return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${alpha})`;
};
// A line's colour as text: drawn half way to the ink, which leaves 4.5:1 against the paper.
const textColour = (colour) => {
  const part = (text, at) => parseInt(text.slice(at, at + 2), 16),
    ink = css("--ink");
  return `rgb(${[1, 3, 5].map((at) => Math.round((part(colour, at) + part(ink, at)) / 2)).join(",")})`;
};
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"];
const symbolOf = (run) => SYMBOLS[run.order % SYMBOLS.length];
const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const wrapped = (text) => plotText(text.replace(/(.{1,60})(\s|$)/g, "$1\n").trim()).replaceAll("\n", "<br>");

// Marks at rows of [x, y, text when hovered].
const marks = (rows, marker, more = {}) => ({
  type: "scatter",
  mode: "markers",
  x: rows.map((row) => row[0]),
  y: rows.map((row) => row[1]),
  text: rows.map((row) => row[2]),
  marker,
  hovertemplate: "%{text}<extra></extra>",
  ...more,
});

// `csv`: () => the rows of this view; `runs`: whose steps a training axis shows, which links the plot's zoom;
// `on`: what the plot's events do.
function draw(id, traces, layout, label, { csv, runs, on = {} } = {}) {
  const node = byId(id),
    isNew = !node.classList.contains("js-plotly-plot");
  const axis = {
    gridcolor: css("--grid"),
    linecolor: css("--line"),
    tickcolor: css("--line"),
    zeroline: false,
    ticks: "outside",
    ticklen: 4,
    automargin: true,
    showline: true,
    exponentformat: "power",
  };
  const base = {
    font: { family: css("--sans"), size: 12.5, color: css("--soft") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    hovermode: "closest",
    margin: { l: 52, r: 16, t: 14, b: 40 },
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hoverlabel: {
      bgcolor: css("--raised"),
      bordercolor: css("--line"),
      font: { color: css("--ink"), size: 13, family: css("--sans") },
      align: "left",
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--ink") },
    ...layout,
  };
  for (const side of [layout.xaxis, layout.yaxis]) if (side?.title) side.title.font = { size: 13 };
  base.xaxis = { ...axis, ...layout.xaxis };
  base.yaxis = { ...axis, ...layout.yaxis };
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", label);
  const drawn = Plotly.react(node, traces, base, {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    scrollZoom: false,
    plotlyServerURL: "",
    modeBarButtons: [
      [
        {
          name: "svg",
          title: "Save as SVG",
          icon: Plotly.Icons.camera,
          click: (gd) => Plotly.downloadImage(gd, { format: "svg", filename: "tracker-" + node.id }),
        },
        "resetScale2d",
      ],
    ],
  });
  offerCsv(node, csv, label);
  if (runs) link(node, runs);
  if (isNew) for (const [event, act] of Object.entries(on)) node.on(event, act);
  return drawn;
}

const note = (text) => ({
  text,
  showarrow: false,
  xref: "paper",
  yref: "paper",
  x: 0.5,
  y: 0.5,
  font: { size: 14, color: css("--soft") },
});
