// The number of heads of each role over training, and every head's role, band, scale and first step at the end.
const ROLE_COLOURS = {
  induction: { light: "#b4541a", dark: "#f0955a" },
  "previous-token": { light: "#1b2559", dark: "#9fb4ff" },
  sink: { light: "#8a3b86", dark: "#d48ad0" },
  local: { light: "#2d8a6b", dark: "#62c9a4" },
  global: { light: "#7a6a12", dark: "#d8c65a" },
};
const roleOf = (key) => DATA.roles.find((entry) => entry.key === key);

// The run whose phases are shown first, where its heads were classified.
const firstRole = () => (roleOf(DATA.shown.phases) || DATA.roles.at(-1))?.key || "";

function drawRoles() {
  fillSelect(
    byId("role-run"),
    DATA.runs.filter((run) => roleOf(run.key)).map((run) => ({ id: run.key, text: run.label })),
    state.role,
  );
  const run = RUNS.get(state.role),
    entry = run && roleOf(run.key);
  byId("roles").hidden = !entry;
  if (!entry) return;
  byId("roles-title").textContent =
    `${run.label}: roles of ${plural(entry.heads.length, "head")} over training`;
  byId("roles-sentence").textContent = typeset(entry.sentence);
  later("roles-plot", () => plotRoles(run, entry));
  const since = ([low, high]) => (low < high ? `(${low}, ${high}]` : high === 0 ? "0" : `${high} or before`);
  fillTable(
    byId("roles-table"),
    [
      { title: "Layer", number: true },
      { title: "Head", number: true },
      { title: "Role" },
      { title: "Score (lower bound)", number: true },
      { title: "Strongest band" },
      { title: "Scale, tokens", number: true },
      { title: "Since step" },
    ],
    entry.heads
      .filter((head) => head.birth)
      .map((head) => [
        head.layer,
        head.head,
        head.role,
        `${number(100 * head.margin, 2)} %`,
        head.band && `${head.band} ${number(100 * head.band_share, 2)} %`,
        head.scale === null ? null : number(head.scale, 3),
        since(head.birth),
      ]),
  );
}

function plotRoles(run, entry) {
  const traces = Object.entries(entry.counts)
    .filter(([, counts]) => counts.some((n) => n > 0))
    .map(([role, counts]) => ({
      type: "scatter",
      mode: "lines+markers",
      name: role,
      x: entry.steps.map((step) => place(step, run)),
      y: counts,
      stackgroup: "heads",
      line: { color: ROLE_COLOURS[role][theme()], width: 1.6, shape: "hv" },
      marker: { size: 4 },
      fillcolor: faded(ROLE_COLOURS[role][theme()], 0.35),
      text: entry.steps.map((step, i) => `<b>${role}</b>, step ${step}: ${plural(counts[i], "head")}`),
      hovertemplate: "%{text}<extra></extra>",
    }));
  return draw(
    "roles-plot",
    traces,
    {
      height: 300,
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      margin: { l: 56, r: 24, t: 10, b: 48 },
      annotations: [
        ...axisBreak([run]),
        ...(traces.length ? [] : [note("No head has a role at any checkpoint")]),
      ],
      xaxis: trainingAxis([run], (byId("roles-plot").clientWidth || 1100) - 80),
      yaxis: { title: { text: "heads" }, range: [0, entry.heads.length], nticks: 6 },
    },
    `Roles of the heads of ${run.label} over training`,
    {
      csv: () => [
        [...RUN_COLUMNS, "step", "role", "heads"],
        ...Object.entries(entry.counts).flatMap(([role, counts]) =>
          entry.steps.map((step, i) => [...runCells(run), step, role, counts[i]]),
        ),
      ],
      runs: [run],
    },
  );
}
