"""Numbers and names as people read them."""

from tracker.metrics.registry import title_of


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def size_name(parameters: float) -> str:
    """A model size for people: 12300 -> 12.3k, 85056000 -> 85.1M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return f"{parameters:.3g}"


def titled(column: str) -> str:
    """A column's title inside a sentence; the column itself where it is no metric's."""
    try:
        title = title_of(column)
    except KeyError:
        title = column
    return title[0].lower() + title[1:]
