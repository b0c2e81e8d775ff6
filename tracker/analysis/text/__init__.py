"""Numbers and names as people read them; the modules of this package turn reports into sentences."""

from tracker.metrics.registry import registry_of, title_of


def number(value: float) -> str:
    """Format a value with three significant digits.

    Example:
        >>> number(0.123456), number(85_056_000)
        ('0.123', '8.51e+07')
    """
    return f"{value:.3g}"


def size_name(parameters: float) -> str:
    """Format a count with its magnitude.

    Example:
        >>> [size_name(size) for size in (12, 12_300, 85_056_000, 2.8e9, 3e11, 1.5e12)]
        ['12', '12.3k', '85.1M', '2.8B', '300B', '1.5T']
    """
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return number(parameters)


def titled(column: str) -> str:
    """Return a column's title inside a sentence; the column itself where it belongs to no metric.

    Example:
        >>> titled("averaged_spectral_entropy"), titled("d_model")
        ('spectral entropy (averaged)', 'd_model')
    """
    try:
        title = title_of(column, registry_of([column.removeprefix("averaged_")]))
    except KeyError:
        title = column
    return title[0].lower() + title[1:]


def listed(names: list[str]) -> str:
    """Join names with commas and a final ``and``.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
