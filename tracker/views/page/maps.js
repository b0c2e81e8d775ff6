// Layer x head maps with a step slider, one head's trajectory, and the mean spectrum over training.
const unpacked = new Map();
let selection = null;

// Undoes encode.pack: base64, zlib, differences along the steps.
async function unpack(text, cells) {
  if (unpacked.has(text)) return unpacked.get(text);
  const raw = Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream('deflate'));
  const codes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = cells; i < codes.length; i++) codes[i] += codes[i - cells];
  unpacked.set(text, codes);
  return codes;
}

const valueOf = (code, scale) => (code === DATA.maps.missing ? null : scale.low + (code / DATA.maps.levels) * (scale.high - scale.low || 1));

async function currentMap() {
  const run = RUNS.get(state.run), map = DATA.maps.runs[state.run], scale = DATA.maps.scales[state.map];
  if (!run || !map || !scale) return null;
  const codes = await unpack(map.metrics[state.map], map.layers * map.heads);
  return { run, map, scale, codes, title: METRIC.get(state.map)?.title || state.map,
    at: (t, layer, head) => valueOf(codes[(t * map.layers + layer) * map.heads + head], scale) };
}

function fillHeadControls() {
  const label = name => METRIC.get(name)?.title || name;
  fillSelect(byId('run'), DATA.runs.map(run => ({ id: run.key, text: run.label })), state.run);
  fillSelect(byId('map'), Object.keys(DATA.maps.scales).map(name => ({ id: name, text: label(name) })), state.map);
  const layers = DATA.maps.runs[state.run]?.layers || 0;
  if (state.layer !== 'mean' && !(Number(state.layer) < layers)) set({ layer: 'mean' });
  fillSelect(byId('layer'), [{ id: 'mean', text: 'mean of all' }, ...Array.from({ length: layers }, (_, i) => ({ id: String(i), text: String(i) }))], state.layer);
}

// The slider's place: the step of the link where this run has it, else the nearest, else the last.
function stepIndex(run) {
  if (state.step === '') return run.steps.length - 1;
  const distances = run.steps.map(step => Math.abs(step - Number(state.step)));
  return Math.max(0, distances.indexOf(Math.min(...distances)));
}

// The head that changes most, unless one was chosen that this model has.
function chosenHead(current) {
  const [layer, head] = state.head.split('.').map(Number);
  if (state.head && layer < current.map.layers && head < current.map.heads) return { layer, head, chosen: true };
  let best = { layer: 0, head: 0 }, widest = -1;
  for (let l = 0; l < current.map.layers; l++) for (let h = 0; h < current.map.heads; h++) {
    const values = current.run.steps.map((_, t) => current.at(t, l, h)).filter(value => value !== null);
    const width = values.length ? Math.max(...values) - Math.min(...values) : -1;
    if (width > widest) { widest = width; best = { layer: l, head: h }; }
  }
  return { ...best, chosen: false };
}

async function drawHeads() {
  const current = await currentMap();
  byId('heads').hidden = !current;
  if (!current) return;
  const slider = byId('step');
  slider.max = current.run.steps.length - 1;
  slider.value = stepIndex(current.run);
  selection = { current, ...chosenHead(current) };
  await drawMap();
  await drawHead();
}

async function drawMap() {
  const { current: { run, map, scale, at, title }, layer, head } = selection;
  const t = Number(byId('step').value), step = run.steps[t];
  byId('step-name').textContent = String(step);
  byId('step').setAttribute('aria-valuetext', `step ${step}`);
  byId('map-title').textContent = `${title} of every head, ${run.label}, step ${step}`;
  const left = DATA.maps.left_out.length ? ` Only in the store, for size: ${DATA.maps.left_out.join(', ')}.` : '';
  byId('map-scale').textContent = `Colours span ${number(scale.low, 3)} to ${number(scale.high, 3)} at every step and for every model, in ${DATA.maps.levels + 1} levels${scale.clipped ? '; values beyond are drawn at the ends' : ''}.${left}`;
  const rows = Array.from({ length: map.layers }, (_, l) => Array.from({ length: map.heads }, (_, h) => at(t, l, h)));
  const trace = { type: 'heatmap', z: rows, zmin: scale.low, zmax: scale.high, colorscale: heatScale(), xgap: 1, ygap: 1,
    hovertemplate: 'layer %{y}, head %{x}<br>%{z:.4~g}<extra></extra>', colorbar: { thickness: 10, outlinewidth: 0, len: 1, ticklen: 3, tickfont: { size: 11.5 } } };
  const box = { type: 'rect', x0: head - 0.5, x1: head + 0.5, y0: layer - 0.5, y1: layer + 0.5, line: { color: '#d98a00', width: 2.4 } };
  const ticks = n => ({ tick0: 0, dtick: Math.ceil(n / 16) });
  await draw('map-plot', [trace], {
    height: Math.min(560, Math.max(230, 90 + 26 * map.layers)), margin: { l: 46, r: 10, t: 8, b: 42 }, shapes: [box], dragmode: false,
    xaxis: { title: { text: 'head', standoff: 6 }, ...ticks(map.heads), range: [-0.5, map.heads - 0.5], showgrid: false, showline: false, fixedrange: true },
    yaxis: { title: { text: 'layer', standoff: 6 }, ...ticks(map.layers), range: [-0.5, map.layers - 0.5], showgrid: false, showline: false, fixedrange: true },
  }, `${title} of every head at step ${step}; chosen: layer ${layer}, head ${head}`);
  const plot = byId('map-plot');
  if (!plot.dataset.ready) { plot.on('plotly_click', event => chooseHead(event.points[0].y, event.points[0].x)); plot.dataset.ready = 'yes'; }
}

async function drawHead() {
  const { current: { run, map, scale, at, title }, layer, head, chosen } = selection;
  byId('head-title').textContent = `Layer ${layer}, head ${head}: ${title.toLowerCase()}${chosen || run.steps.length < 2 ? '' : ' (the head that changes most)'}`;
  const x = run.steps.map(step => place(step, run));
  const others = { type: 'scatter', mode: 'lines', x: [], y: [], hoverinfo: 'skip', line: { width: 1, color: faded(colourOf(run), 0.28) } };
  for (let h = 0; h < map.heads; h++) if (h !== head) { others.x.push(...x, null); others.y.push(...run.steps.map((_, t) => at(t, layer, h)), null); }
  const own = { type: 'scatter', mode: run.steps.length > 60 ? 'lines' : 'lines+markers', x, y: run.steps.map((_, t) => at(t, layer, head)), connectgaps: true,
    line: { width: 2.4, color: '#d98a00' }, marker: { size: 6 }, customdata: run.steps, hovertemplate: 'step %{customdata}<br>%{y:.3~g}<extra></extra>' };
  const width = (byId('head-plot').clientWidth || 480) - 60, axis = trainingAxis([run], width);
  const marks = phaseMarks(state.run, axis, width), at0 = place(run.steps[Number(byId('step').value)], run);
  const now = { type: 'line', xref: 'x', yref: 'paper', x0: at0, x1: at0, y0: 0, y1: 1, line: { color: css('--ink'), width: 1, dash: 'dot' } };
  const pad = (scale.high - scale.low) * 0.04;
  await draw('head-plot', [others, own], {
    height: Math.min(560, Math.max(230, 90 + 26 * map.layers)), margin: { l: 50, r: 10, t: 24, b: 42 }, shapes: [...marks.shapes, now],
    annotations: [...marks.annotations, ...axisBreak([run])], xaxis: axis,
    yaxis: { range: [scale.low - pad, scale.high + pad], nticks: 6 },
  }, `${title} of layer ${layer}, head ${head} over training`);
}

// The line that marks the slider's step is the last shape; moving it is quicker than drawing the curves again.
function moveNow() {
  const { run } = selection.current, plot = byId('head-plot'), at = place(run.steps[Number(byId('step').value)], run);
  const last = `shapes[${plot.layout.shapes.length - 1}]`;
  return Plotly.relayout(plot, { [`${last}.x0`]: at, [`${last}.x1`]: at });
}

function chooseHead(layer, head) {
  set({ head: `${layer}.${head}` });
  Object.assign(selection, { layer, head, chosen: true });
  return drawMap().then(drawHead);
}

function moveHead(event) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
  if (!(event.key in moves) || !selection) return;
  event.preventDefault();
  const { map } = selection.current, [up, right] = moves[event.key];
  chooseHead(Math.min(map.layers - 1, Math.max(0, selection.layer + up)), Math.min(map.heads - 1, Math.max(0, selection.head + right)));
}

// A slider sends more events than can be drawn: those that arrive meanwhile are drawn as one.
let drawing = null, waiting = false;
function chooseStep(index) {
  byId('step').value = index;
  set({ step: String(selection.current.run.steps[index]) });
  waiting = true;
  const all = async () => { while (waiting) { waiting = false; await drawMap(); await moveNow(); } };
  drawing ??= all().finally(() => { drawing = null; });
  return drawing;
}

let player = null;
function play() {
  const button = byId('play'), last = () => Number(byId('step').max);
  const stop = () => { clearInterval(player); player = null; button.textContent = 'Play'; button.setAttribute('aria-pressed', 'false'); };
  if (player) { stop(); return; }
  if (Number(byId('step').value) >= last()) chooseStep(0);
  button.textContent = 'Pause';
  button.setAttribute('aria-pressed', 'true');
  const pause = Math.max(60, Math.min(450, 9000 / (last() + 1)));
  player = setInterval(() => {
    const next = Number(byId('step').value) + 1;
    if (next > last()) stop(); else chooseStep(next);
  }, pause);
}

// Edges of the cells on the training axis: half way between neighbouring checkpoints.
function edges(xs) {
  if (xs.length === 1) return [xs[0] - 0.5, xs[0] + 0.5];
  const inner = xs.slice(1).map((x, i) => (x + xs[i]) / 2);
  return [2 * xs[0] - inner[0], ...inner, 2 * xs[xs.length - 1] - inner[inner.length - 1]];
}

async function drawSpectrum() {
  const run = RUNS.get(state.run), map = DATA.maps.runs[state.run], bands = DATA.maps.bands;
  if (!run || !map || !map.spectrum) { byId('spectrum-plot').closest('figure').hidden = true; return; }
  byId('spectrum-plot').closest('figure').hidden = false;
  const codes = await unpack(map.spectrum, map.layers * bands.count);
  const share = (t, layer, band) => { const power = valueOf(codes[(t * map.layers + layer) * bands.count + band], bands); return power === null ? null : 10 ** power; };
  const layers = state.layer === 'mean' ? Array.from({ length: map.layers }, (_, i) => i) : [Number(state.layer)];
  const mean = (t, band) => { const values = layers.map(layer => share(t, layer, band)).filter(v => v !== null); return values.length ? values.reduce((a, b) => a + b) / values.length : null; };
  const rows = Array.from({ length: bands.count }, (_, band) => run.steps.map((_, t) => mean(t, band)));
  const logs = rows.map(row => row.map(value => (value === null ? null : Math.log10(value))));
  const flat = logs.flat().filter(value => value !== null), ticks = [-4, -3, -2, -1, 0];
  const name = band => `${number(band / bands.count, 3)} to ${number((band + 1) / bands.count, 3)} of Nyquist`;
  const width = (byId('spectrum-plot').clientWidth || 1100) - 130, axis = trainingAxis([run], width), xs = edges(run.steps.map(step => place(step, run)));
  await draw('spectrum-plot', [{
    type: 'heatmap', x: xs, y: Array.from({ length: bands.count + 1 }, (_, i) => i / bands.count), z: logs,
    zmin: Math.min(...flat), zmax: Math.max(...flat), colorscale: heatScale(),
    text: rows.map((row, band) => row.map((value, t) => `step ${run.steps[t]}<br>${name(band)}<br>${value === null ? 'none' : number(100 * value, 3) + ' &#37; of power'}`)),
    hovertemplate: '%{text}<extra></extra>',
    colorbar: { thickness: 10, outlinewidth: 0, ticklen: 3, len: 1, tickvals: ticks, ticktext: ticks.map(k => `${number(100 * 10 ** k)} &#37;`), tickfont: { size: 11.5 } },
  }], {
    height: 256, margin: { l: 52, r: 10, t: 30, b: 42 }, ...phaseBrackets(state.run, axis, width), dragmode: false,
    xaxis: { ...axis, range: [xs[0], xs[xs.length - 1]] },
    yaxis: { title: { text: 'frequency / Nyquist', standoff: 6 }, range: [0, 1], tickvals: [0, 0.25, 0.5, 0.75, 1], showgrid: false, fixedrange: true },
  }, `Mean spectrum of ${run.label} over training`);
  byId('spectrum-note').textContent = `Share of power in ${bands.count} equal bands, rows of ${run.label}, ${state.layer === 'mean' ? 'mean over layers' : 'layer ' + state.layer}; each column is one checkpoint.`;
}

// On a heatmap the tint would lie: names and brackets only.
function phaseBrackets(key, axis, width) {
  const marks = phaseMarks(key, axis, width);
  return { shapes: marks.shapes.filter(shape => shape.type === 'path').map(shape => ({ ...shape, path: shape.path.replaceAll('0.96', '1.0').replaceAll(',1 ', ',1.05 ') })), annotations: marks.annotations.map(a => ({ ...a, yshift: 11 })) };
}
