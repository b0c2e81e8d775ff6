// Where the numbers come from, and what is not among them.
function drawProvenance() {
  byId('store').textContent = DATA.store;
  const columns = [['Run'], ['Suite'], ['Source'], ['Position encoding'], ['Probe'], ['Conventions'], ['Weights as'], ['Device'], ['tracker'], ['Sequences x tokens', 1], ['Token digest'], ['Undefined rows', 1], ['Seconds', 1], ['Peak memory', 1]];
  fillTable(byId('origin'), columns.map(([title, numeric]) => ({ title, number: Boolean(numeric) })), DATA.runs.map(run => {
    const f = run.facts;
    return [run.label, run.suite, f.repo, f.position_encoding, DATA.probe, DATA.conventions, f.dtype, f.device, f.tracker_version, `${f.n_sequences} x ${f.n_tokens}`,
      f.token_digest ? f.token_digest.slice(0, 8) : null, f.undefined_rows, f.seconds === null ? null : number(f.seconds, 3), f.peak_bytes ? count(f.peak_bytes) + 'B' : null];
  }));
  drawAudit();
  byId('no-holes').textContent = DATA.holes.length ? '' : 'None: every checkpoint that was planned is measured.';
  byId('holes').hidden = !DATA.holes.length;
  fillTable(byId('holes'), [{ title: 'Suite' }, { title: 'Model' }, { title: 'Seed', number: true }, { title: 'Step', number: true }, { title: 'Status' }, { title: 'Reason' }],
    DATA.holes.map(hole => [hole.suite, hole.model, hole.seed, hole.step, hole.status, hole.reason]));
  fillTable(byId('commits'), [{ title: 'Run' }, { title: 'Step: commit or fingerprint' }],
    DATA.runs.map(run => [run.label, run.steps.map((step, i) => `${step}: ${run.commits[i] ?? 'unknown'}`).join('   ')]));
  fillTable(byId('meanings'), [{ title: 'Metric' }, { title: 'Unit' }, { title: 'Meaning' }, { title: 'Source' }, { title: 'Column' }],
    DATA.metrics.map(m => [m.title, m.unit || null, m.meaning, m.source, m.name]));
}

// What an audit found, a row per fault, partner and source, with all its steps.
function drawAudit() {
  byId('audit-box').hidden = !DATA.audit.length;
  const rows = new Map();
  for (const entry of DATA.audit) {
    for (const f of entry.findings) {
      const key = [entry.repo, f.fault, f.with, f.file, f.known].join('\n');
      if (!rows.has(key)) rows.set(key, [entry.repo, f.fault, [], f.with, f.file, f.known ? `reported in ${f.known}` : 'found here']);
      rows.get(key)[2].push(f.step);
    }
    for (const d of entry.disagreements) rows.set(`${entry.repo}\n${d.source}\n${d.reported}`,
      [entry.repo, d.reported, d.steps, null, null, `reported in ${d.source}, but the hub ${d.hub}`]);
  }
  const checked = DATA.audit.map(entry => `${entry.repo} (${plural(entry.checked, 'step')})`).join(', ');
  byId('audit-note').textContent = `Compared by file hashes: ${checked}. Suspect checkpoints are drawn hollow and left out of fits; twins at steps 0 and 1 are expected where the first learning rate is 0.`
    + (rows.size ? '' : ' Nothing was found.');
  byId('audit').hidden = !rows.size;
  fillTable(byId('audit'), [{ title: 'Repository' }, { title: 'Fault' }, { title: 'Steps' }, { title: 'With' }, { title: 'File' }, { title: 'Known' }],
    [...rows.values()].map(row => row.map((cell, i) => (i === 2 ? cell.join(', ') : cell))));
}
