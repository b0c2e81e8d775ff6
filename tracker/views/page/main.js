// Wires the controls and draws everything from the state.
function syncControls() {
  const axes = {
    log: "log steps",
    linear: "linear steps",
    tokens: "log tokens",
    "linear-tokens": "linear tokens",
  };
  fillSelect(
    byId("x"),
    Object.entries(axes)
      .filter(([id]) => HAS_TOKENS || !id.endsWith("tokens"))
      .map(([id, text]) => ({ id, text })),
    state.x,
  );
  fillSelect(
    byId("band"),
    [
      { id: "sequences", text: "95 % interval over sequences" },
      { id: "heads", text: "middle half of heads" },
      { id: "none", text: "none" },
    ],
    state.band,
  );
  fillSelect(
    byId("phases"),
    [
      { id: "none", text: "none" },
      ...DATA.runs.filter((run) => phasesOf(run.key)).map((run) => ({ id: run.key, text: run.label })),
    ],
    state.phases,
  );
  byId("landmarks-box").hidden = !DATA.landmarks.length;
  byId("landmarks").checked = state.events === "on";
  fillHeadControls();
  fillWhyControls();
  fillScaleControls();
}

function applyTheme() {
  document.documentElement.dataset.theme = theme();
  byId("theme").textContent = theme() === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Switch to ${theme() === "dark" ? "light" : "dark"} colours`);
}

// Texts, tables and controls at once, figures when their turn comes.
function drawAll() {
  applyTheme();
  syncControls();
  drawChips();
  drawMultiples();
  drawRibbon();
  drawTrajectories();
  drawHeads();
  drawSpectrum();
  drawWhy();
  drawRoles();
  drawEncodings();
  drawScale();
  fillSections();
}

function wire() {
  const on = (id, field, redraw) =>
    byId(id).addEventListener("change", (event) => {
      set({ [field]: event.target.value });
      redraw();
    });
  on("x", "x", () => {
    zoomed = null;
    drawAll();
  });
  on("band", "band", drawTrajectories);
  on("phases", "phases", drawTrajectories);
  on("sm", "sm", drawScale);
  on("sx", "sx", drawScale);
  on("ss", "ss", drawScale);
  byId("paper-points").addEventListener("change", (event) => {
    set({ paper: event.target.checked ? "on" : "off" });
    drawScale();
  });
  on("layer", "layer", drawSpectrum);
  on("sp", "sp", drawSpectrum);
  on("role-run", "role", drawRoles);
  on("eg", "eg", drawEncodings);
  on("em", "em", drawEncodings);
  on("why-run", "why", drawWhy);
  on("map", "map", drawHeads);
  on("run", "run", () => {
    set({ head: "" });
    fillHeadControls();
    drawHeads();
    drawSpectrum();
  });
  byId("landmarks").addEventListener("change", (event) => {
    set({ events: event.target.checked ? "on" : "off" });
    drawTrajectories();
  });
  byId("step").addEventListener("input", (event) => chooseStep(Number(event.target.value)));
  byId("play").addEventListener("click", play);
  byId("map-plot").addEventListener("keydown", moveHead);
  byId("theme").addEventListener("click", () => {
    set({ theme: theme() === "dark" ? "light" : "dark" });
    drawAll();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("trajectories").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !state.big) return;
    set({ big: "" });
    drawTrajectories();
  });
  watchScrolling();
  window.addEventListener("scroll", markSection, { passive: true });
  let width = window.innerWidth,
    timer = null;
  window.addEventListener("resize", () => {
    if (printing || window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(timer);
    timer = setTimeout(drawAll, 150);
  });
  darkSystem.addEventListener("change", drawAll);
  window.addEventListener("hashchange", () => {
    readState();
    zoomed = null;
    drawAll();
  });
  window.addEventListener("beforeprint", () => togglePrint(true));
  window.addEventListener("afterprint", () => togglePrint(false));
}

function togglePrint(on) {
  printing = on;
  waiting.clear();
  document.body.classList.toggle("printing", on);
  drawAll();
  for (const plot of document.querySelectorAll(".js-plotly-plot"))
    if (plot.offsetParent) Plotly.Plots.resize(plot);
}

function drawTexts() {
  drawOverview();
  drawPaper();
  drawAudit();
  drawProvenance();
}

async function start() {
  take(JSON.parse(byId("data").textContent));
  readState();
  applyTheme();
  drawTexts();
  makePanels();
  wire();
  await loadPlotly();
  drawAll();
  if (DATA.served) follow();
}

start();
