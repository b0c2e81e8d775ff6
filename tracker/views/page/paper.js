// Every model beside the paper: ours, theirs and the difference, a row per metric and signal.
function drawPaper() {
  const { models, rows, shared } = DATA.paper;
  byId("paper").hidden = !rows.length;
  const heads = ["Metric", "Signal", ...(shared ? ["Paper, 410M and more"] : []), ...models];
  fillTable(
    byId("paper-table"),
    heads.map((title) => ({ title })),
    rows.map(({ title, signal, cells }) => [
      title,
      signal,
      ...(shared
        ? cells
            .filter(Boolean)
            .slice(0, 1)
            .map(({ theirs, among }) => stacked("span", theirs, among))
        : []),
      ...cells.map((cell) => cell && paperCell(cell, shared)),
    ]),
  );
  byId("paper-note").textContent =
    "Bold: this store, at the last checkpoint of each model, seeds averaged; below, ours minus theirs. " +
    "Theirs is the paper's value of the same model or, for a model that it does not name, the median (and range) of its models of 410M and more. " +
    "The paper does not say on which signal a table stands, so both are shown; tables 5 and 6 are nearest to attention rows and to averaged attention.";
  offerCsv(
    byId("paper-box"),
    () => [
      ["metric", "signal", "model", "ours", "theirs", "difference", "reading"],
      ...rows.flatMap(({ title, signal, cells }) =>
        cells.flatMap((cell, i) =>
          cell ? [[title, signal, models[i], cell.ours, cell.theirs, cell.difference, cell.words]] : [],
        ),
      ),
    ],
    "beside the paper",
  );
}

const stacked = (tag, above, below) => el("div", {}, el(tag, {}, above), el("small", {}, below));

function paperCell({ ours, theirs, among, difference, words }, shared) {
  const cell = stacked("strong", ours, shared ? difference : `paper ${theirs}, difference ${difference}`);
  cell.title = [words, among && `theirs: ${among}`].filter(Boolean).join("; ");
  return cell;
}
