"""The full text of an analysis: its sentences, and what moves before, with and after each transition."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracker.analysis.order import USUAL
from tracker.analysis.schema import AnalysisReport, ChangeContext, Lag
from tracker.analysis.text import number, titled
from tracker.analysis.text.transitions import VERDICTS, context_sentence, span
from tracker.console.output import print_line, print_table

NO_CAUSE = "Temporal order does not imply causation."


def print_sentences(console: Console, report: AnalysisReport) -> None:
    """Print the summary of a report in full sentences, without what ``print_contexts`` tabulates."""
    tabulated = {NO_CAUSE, *(context_sentence(entry) for entry in report.lead_lag)}
    for sentence in report.summary:
        if sentence not in tabulated:
            print_line(console, sentence)


def print_contexts(console: Console, contexts: Sequence[ChangeContext]) -> None:
    """Print what else moves around every transition; nothing where there is none."""
    known = [each for each in contexts if any(lag.verdict != "undefined" for lag in each.covariates.values())]
    if not known:
        return
    console.print()
    print_table(console, context_table(known))
    if len(known) > 1:
        console.print()
        print_table(console, order_table(known))
    if any(name not in USUAL for entry in known for name in entry.covariates):
        console.print()
        print_table(console, further_table(known))
    print_line(console, NO_CAUSE)


def context_table(contexts: Sequence[ChangeContext]) -> Table:
    """Tabulate usual covariates under their models: from which value to which, half between which steps, and
    how that lies to the half of the transition in octaves (doublings of the step, 90 %)."""
    table = Table(box=None, pad_edge=False)
    for heading in ("what else moves", "from -> to", "half", "to the transition", "octaves (90 %)"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for entry in contexts:
        place = span((entry.step_low, entry.step_high))
        table.add_row(Text(f"{entry.model} seed {entry.seed}", style="bold"), "", place, "half way", "")
        for name, lag in entry.covariates.items():
            if lag.verdict != "undefined" and name in USUAL:
                table.add_row(f"  {titled(name)}", *_cells(lag))
        if (heads := entry.contributions.get("frequency_selectivity")) is not None:
            table.add_row("  heads: half of selectivity", f"{heads.half_by} of {heads.of}", "", "", "")
    return table


def order_table(contexts: Sequence[ChangeContext]) -> Table:
    """Tabulate, a row per run, how many octaves before (negative) or after the half of its transition each
    usual covariate is half way, at 90 %; a dash where it does not move beyond noise."""
    names = list(dict.fromkeys(name for entry in contexts for name in entry.covariates))
    names = [name for name in names if name in USUAL and any(_octaves(each, name) for each in contexts)]
    table = Table(box=None, pad_edge=False)
    table.add_column("octaves, 90 %", no_wrap=True)
    for name in names:
        table.add_column(titled(name).removesuffix(" score"), justify="right")
    for entry in contexts:
        cells = (_octaves(entry, name) or "-" for name in names)
        table.add_row(Text(f"{entry.model} seed {entry.seed}"), *cells)
    return table


def further_table(contexts: Sequence[ChangeContext]) -> Table:
    """Tabulate how weights and states lie to the transition, a row per measure and a column per model.

    Of one seed with the octaves at 90 %; of several how many of them have which verdict. A dash: no change
    beyond noise.
    """
    names = dict.fromkeys(name for entry in contexts for name in entry.covariates if name not in USUAL)
    models: dict[tuple[str, str], list[ChangeContext]] = {}
    for entry in contexts:
        models.setdefault((entry.suite, entry.model), []).append(entry)
    table = Table(box=None, pad_edge=False)
    table.add_column("weights and states", no_wrap=True)
    for suite, model in models:
        twice = sum(model == other for _, other in models) > 1
        table.add_column(Text(f"{model} ({suite})" if twice else model), no_wrap=True, overflow="ellipsis")
    for name in names:
        table.add_row(titled(name), *(_verdicts(name, entries) for entries in models.values()))
    return table


def _verdicts(name: str, entries: Sequence[ChangeContext]) -> str:
    lags = [entry.covariates[name] for entry in entries if name in entry.covariates]
    words = VERDICTS | {"still": "-"}
    counts = Counter(words.get(lag.verdict, lag.verdict) for lag in lags if lag.verdict != "undefined")
    if len(entries) > 1:
        return ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
    octaves = _octaves(entries[0], name)
    return f"{next(iter(counts), '')}{f'  {octaves}' if octaves else ''}"


def _octaves(entry: ChangeContext, name: str) -> str:
    lag = entry.covariates.get(name)
    return "" if lag is None or lag.interval is None else f"{lag.interval[0]:+.1f} to {lag.interval[1]:+.1f}"


def _cells(lag: Lag) -> tuple[str, str, str, str]:
    verdict = VERDICTS.get(lag.verdict, lag.verdict)
    if lag.start is None or lag.finish is None or lag.bracket is None or lag.interval is None:
        return "", "", verdict, ""
    low, high = lag.interval
    moved = f"{number(lag.start)} -> {number(lag.finish)}"
    return moved, span(lag.bracket), verdict, f"{low:+.1f} to {high:+.1f}"
