"""``tracker analyse``: phases per model and thresholds over models, as text and analysis.json."""

from rich.console import Console

from tracker.commands.analysed import analysed
from tracker.commands.results import chosen_results, without_suspects
from tracker.config import Config
from tracker.console.output import DONE, print_alerts, print_damaged, print_line


def run(config: Config, console: Console) -> int:
    """Analyse the stored results, write analysis.json and print what was found in full."""
    from tracker.analysis.schema import AnalysisReport
    from tracker.console.charts import show_charts
    from tracker.console.closing import print_models
    from tracker.console.full_text import print_contexts, print_sentences

    results = chosen_results(config)
    content = analysed(results, config)
    report = AnalysisReport.from_dict(content)
    if console.is_terminal:
        show_charts(console, without_suspects(results, config)[0], content["phases"])
    print_models(console, report)
    console.print()
    print_sentences(console, report)
    print_contexts(console, report.lead_lag)
    print_alerts(console, [alert["sentence"] for alert in content["alerts"]])
    print_damaged(console, results.damaged)
    print_line(console, f"Details: {config.store / 'analysis.json'}")
    return DONE
