// What was found, in words, and what it was found on.
function drawOverview() {
  const { models, runs, checkpoints, failed, missing } = DATA.counts;
  const suites = [...new Set(DATA.models.map(model => model.suite))];
  byId('eyebrow').textContent = [suites.join(', ') || 'empty store', DATA.probe].filter(Boolean).join(' · ');
  document.title = `${suites.join(', ')}: attention heads over training`;
  const sentences = DATA.summary.length ? DATA.summary
    : [DATA.analysed ? 'The analysis found nothing to report.' : 'Not analysed yet: `tracker analyse` looks for phases and thresholds.'];
  byId('summary').replaceChildren(...sentences.slice(0, 6).map(sentence => el('li', {}, sentence)));
  byId('more-box').hidden = sentences.length <= 6;
  byId('more-name').textContent = `${sentences.length - 6} more`;
  byId('more').replaceChildren(...sentences.slice(6).map(sentence => el('li', {}, sentence)));
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
  byId('alerts-name').textContent = `${plural(alerts.length, 'alert')}: results that the paper's mechanisms do not allow`;
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
