"""Numbers and lines of text in the tables that commands print."""


def table(rows: dict[str, str]) -> str:
    """Lines of a name and its value, aligned."""
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:{width}}{value}".rstrip() for name, value in rows.items())


def count(number: float) -> str:
    """A number of things in a word: 1,072 · 10.9M · 8.03B."""
    for unit, size in {"T": 1e12, "B": 1e9, "M": 1e6}.items():
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 100 * size else f"{number / size:.0f}{unit}"
    return f"{number:,.0f}"
