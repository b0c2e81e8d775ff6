// What was found, in words, and what it was found on.
const MOST_TOLD = 4;

function drawOverview() {
  const { models, runs, checkpoints, failed, missing } = DATA.counts;
  const suites = [...new Set(DATA.models.map(model => model.suite))];
  byId('eyebrow').textContent = [suites.join(', ') || 'empty store', DATA.probe].filter(Boolean).join(' · ');
  document.title = `${suites.join(', ')}: attention heads over training`;
  const sentences = DATA.summary.length ? DATA.summary
    : [DATA.analysed ? 'The analysis found nothing to report.' : 'Not analysed yet: a sweep looks for phases and thresholds when it ends, `tracker analyse` at any time.'];
  byId('stale').hidden = !DATA.stale;
  drawGlance();
  // What the table above says in short, per model, is told in full on request.
  const ofModels = sentences.filter(sentence => DATA.glance.some(({ model }) => [':', ',', ' seed '].some(sign => sentence.startsWith(model + sign))));
  const others = sentences.filter(sentence => !ofModels.includes(sentence)), rest = [...ofModels, ...others.slice(MOST_TOLD)];
  const items = told => told.map(sentence => el('li', {}, capital(sentence)));
  byId('summary').replaceChildren(...items(others.slice(0, MOST_TOLD)));
  byId('more-box').hidden = !rest.length;
  byId('more-name').textContent = `In full: ${plural(rest.length, 'more sentence')}`;
  byId('more').replaceChildren(...items(rest));
  drawAlerts();
  const box = byId('counts');
  box.replaceChildren(el('strong', {}, plural(models, 'model')), runs > models ? ` in ${plural(runs, 'run')}` : '', ', ',
    el('strong', {}, plural(checkpoints, 'checkpoint')), ' measured');
  if (failed + missing) {
    const holes = [failed && `${failed} failed`, missing && `${missing} missing`].filter(Boolean).join(', ');
    box.append(', ', el('span', { class: 'warn' }, holes), ' (reasons below, under provenance; × on the curves)');
  }
  box.append('. Curves are means over heads and sequences; phases come from change points of several metrics together on the log-step axis.');
  drawModels();
}

// Where the results break what the paper's mechanisms need.
function drawAlerts() {
  const alerts = DATA.alerts;
  byId('alerts-box').hidden = !alerts.length;
  byId('alerts-name').textContent = `${plural(alerts.length, 'alert')}: what the paper's mechanisms do not allow, or training that leaves its course`;
  byId('alerts').replaceChildren(...alerts.map(alert => el('li', {}, alert.sentence)));
}

function drawModels() {
  const heads = ['Model', 'Suite'].map(title => ({ title })).concat(
    ['Seeds', 'Parameters', 'without embeddings', 'Layers', 'Heads', 'd_model', 'Checkpoints', 'Last step', 'Not measured']
      .map(title => ({ title, number: true })));
  fillTable(byId('models'), heads, DATA.models.map(({ suite, model }) => {
    const runs = DATA.runs.filter(run => run.suite === suite && run.model === model);
    const facts = runs[0].facts;
    const holes = DATA.holes.filter(hole => hole.suite === suite && hole.model === model).length;
    return [model, suite, runs.length, count(facts.params_total), count(facts.params_non_embedding), facts.n_layers,
      facts.n_heads, facts.d_model, runs.reduce((n, run) => n + run.steps.length, 0),
      Math.max(...runs.map(run => run.steps[run.steps.length - 1])), holes];
  }));
}

// One row per model: which phases, where they begin, how sure.
function drawGlance() {
  byId('glance-box').hidden = !DATA.glance.length;
  const several = new Set(DATA.glance.map(row => row.suite)).size > 1;
  const titles = ['Model', 'Exploratory phase from step', 'in so many resamples', 'Selectivity lowest at step', 'Specialisation from step', 'in so many resamples', 'p of no change'];
  fillTable(byId('glance'), titles.map(title => ({ title })), DATA.glance.map(row => [several ? `${row.suite} ${row.model}` : row.model,
    row.exploratory, row.exploratory_sure, row.extremum, row.specialisation, row.specialisation_sure, row.p_value]));
}
