// What moves before, with or after each change: covariates on the training axis, and all changes counted.
const VERDICTS = {
  before: { symbol: 'triangle-left', colour: { light: '#2a69a3', dark: '#82b8e6' } },
  with: { symbol: 'circle', colour: { light: '#58606e', dark: '#9ca5b3' } },
  after: { symbol: 'triangle-right', colour: { light: '#b06a00', dark: '#e8a93a' } },
  'cannot tell': { symbol: 'circle-open', colour: { light: '#58606e', dark: '#9ca5b3' } },
  still: { symbol: 'line-ew-open', colour: { light: '#8a8f98', dark: '#78828f' } },
};
const SIGN_OF = { before: '◄', with: '●', after: '►', 'cannot tell': '○', still: '–' };
const colourOfVerdict = verdict => VERDICTS[verdict].colour[theme()];
const whyOf = key => DATA.lead_lag.filter(entry => `${entry.suite}/${entry.model}/${entry.seed}` === key);

function fillWhyControls() {
  fillSelect(byId('why-run'), DATA.runs.filter(run => whyOf(run.key).length).map(run => ({ id: run.key, text: run.label })), state.why);
}

function drawWhy() {
  const run = RUNS.get(state.why), changes = run ? whyOf(run.key) : [];
  byId('why').hidden = !changes.length;
  if (!changes.length) return;
  byId('why-title').textContent = `${run.label}: ${plural(changes.length, 'change')} of the frequency structure, and what else moves`;
  drawOrder(run, changes);
  drawVerdicts();
  drawWhyTable(changes);
}

// A lag is counted in measured checkpoints from the change's place to the covariate's own.
function inWords(told) {
  if (told.verdict === 'still') return 'still';
  if (told.lag === null) return told.verdict;
  const interval = told.interval && told.interval[0] !== told.interval[1] ? ` (${told.interval[0]} to ${told.interval[1]})` : '';
  return `${told.verdict}, ${told.lag > 0 ? '+' : ''}${told.lag}${interval}`;
}

function drawOrder(run, changes) {
  const names = DATA.covariates.filter(({ name }) => changes.some(entry => entry.covariates[name]));
  const rowOf = new Map(names.map(({ name }, i) => [name, names.length - 1 - i]));
  const shapes = [], marks = new Map(Object.keys(VERDICTS).map(verdict => [verdict, []]));
  changes.forEach((entry, k) => {
    const x0 = place(entry.step_low, run), x1 = place(entry.step_high, run), shift = ((changes.length - 1) / 2 - k) * 0.22;
    if (x0 === null || x1 === null) return;
    shapes.push({ type: 'rect', xref: 'x', yref: 'paper', x0, x1, y0: 0, y1: 1, layer: 'below', line: { width: 0 }, fillcolor: faded(phaseColour('exploratory'), 0.2) });
    for (const { name, title } of names) {
      const told = entry.covariates[name];
      if (!told || !VERDICTS[told.verdict]) continue;
      const ends = told.bracket ? told.bracket.map(step => place(step, run)) : [x0, x1], y = rowOf.get(name) + shift, colour = colourOfVerdict(told.verdict);
      if (told.bracket) shapes.push({ type: 'line', xref: 'x', yref: 'y', x0: ends[0], x1: ends[1], y0: y, y1: y, line: { color: colour, width: 4 } });
      marks.get(told.verdict).push([(ends[0] + ends[1]) / 2, y, `<b>${plotText(title)}</b>: ${inWords(told)} checkpoints<br>change of the structure: steps ${entry.step_low} to ${entry.step_high}`
        + (told.bracket ? `<br>its own change: steps ${told.bracket[0]} to ${told.bracket[1]}` : '<br>no change of its own there')]);
    }
  });
  const traces = [...marks].filter(([, rows]) => rows.length).map(([verdict, rows]) => ({ type: 'scatter', mode: 'markers', name: verdict, x: rows.map(p => p[0]), y: rows.map(p => p[1]), text: rows.map(p => p[2]),
    marker: { symbol: VERDICTS[verdict].symbol, size: 11, color: colourOfVerdict(verdict), line: { width: 1.8, color: colourOfVerdict(verdict) } }, hovertemplate: '%{text}<extra></extra>' }));
  byId('why-legend').replaceChildren(...Object.keys(VERDICTS).map(verdict => {
    const sign = el('b', {}, SIGN_OF[verdict]);
    sign.style.color = colourOfVerdict(verdict);
    return el('span', {}, sign, ` ${verdict}`);
  }));
  draw('why-plot', traces, {
    height: 78 + 44 * names.length, margin: { l: 150, r: 16, t: 10, b: 42 }, shapes, dragmode: false, annotations: axisBreak([run]),
    xaxis: trainingAxis([run], (byId('why-plot').clientWidth || 1100) - 166),
    yaxis: { range: [-0.6, names.length - 0.4], tickvals: names.map(({ name }) => rowOf.get(name)), ticktext: names.map(({ title }) => plotText(title)), showline: false, ticks: '', fixedrange: true },
  }, `Changes of ${run.label} and of its covariates over training`);
}

// Bars of counts over the changes of all runs, each part with its number.
function drawVerdicts() {
  const counts = new Map();
  for (const entry of DATA.lead_lag) for (const [name, { verdict }] of Object.entries(entry.covariates)) counts.set(`${name} ${verdict}`, (counts.get(`${name} ${verdict}`) || 0) + 1);
  const names = [...DATA.covariates].reverse().filter(({ name }) => Object.keys(VERDICTS).some(verdict => counts.has(`${name} ${verdict}`)));
  const perChange = ((byId('verdicts-plot').clientWidth || 1100) - 166) / DATA.lead_lag.length;
  const fits = number => number * perChange > 14 + 8 * String(number).length;
  const inside = { before: '#ffffff', with: '#ffffff', after: '#ffffff', 'cannot tell': css('--ink'), still: css('--ink') };
  const traces = Object.keys(VERDICTS).map(verdict => ({ type: 'bar', orientation: 'h', name: verdict, y: names.map(({ title }) => plotText(title)), x: names.map(({ name }) => counts.get(`${name} ${verdict}`) || 0),
    text: names.map(({ name }) => (fits(counts.get(`${name} ${verdict}`)) ? `${SIGN_OF[verdict]} ${counts.get(`${name} ${verdict}`)}` : '')), textposition: 'inside', insidetextanchor: 'middle', textangle: 0, constraintext: 'none',
    textfont: { color: theme() === 'dark' && inside[verdict] === '#ffffff' ? '#0d1218' : inside[verdict] },
    marker: { color: ['still', 'cannot tell'].includes(verdict) ? faded(colourOfVerdict(verdict), 0.22) : colourOfVerdict(verdict), line: { width: 1, color: css('--paper') } }, hovertemplate: `%{y}: %{x} ${verdict}<extra></extra>` }));
  byId('verdicts-title').textContent = `All ${plural(DATA.lead_lag.length, 'change')} of ${plural(new Set(DATA.lead_lag.map(e => `${e.suite}/${e.model}/${e.seed}`)).size, 'run')}, counted`;
  draw('verdicts-plot', traces, { height: 96 + 30 * names.length, barmode: 'stack', bargap: 0.3, margin: { l: 150, r: 16, t: 10, b: 42 }, dragmode: false,
    xaxis: { title: { text: 'changes', standoff: 8 }, fixedrange: true, dtick: Math.max(1, Math.ceil(DATA.lead_lag.length / 10)) }, yaxis: { showgrid: false, ticks: '', showline: false, fixedrange: true } }, 'Verdicts of every covariate over all changes');
}

const lines = texts => el('ul', { class: 'plain' }, ...texts.map(text => el('li', {}, text)));

function drawWhyTable(changes) {
  const names = DATA.covariates.filter(({ name }) => changes.some(entry => entry.covariates[name]));
  const carried = entry => entry.carriers.frequency_selectivity || entry.carriers.spectral_entropy;
  fillTable(byId('why-table'), ['Change, steps', ...names.map(({ title }) => title), 'Half of it carried by', 'Most by', 'Known events there'].map(title => ({ title })),
    changes.map(entry => [`(${entry.step_low}, ${entry.step_high}]`, ...names.map(({ name }) => (entry.covariates[name] ? inWords(entry.covariates[name]) : null)),
      carried(entry) ? `${carried(entry).half_by} of ${plural(carried(entry).of, 'head')}` : null,
      carried(entry) ? lines(carried(entry).heads.slice(0, 3).map(h => `layer ${h.layer} head ${h.head}: ${number(100 * h.share, 2)} %`)) : null,
      entry.landmarks.length ? lines(entry.landmarks.map(mark => mark.name)) : null]));
}
