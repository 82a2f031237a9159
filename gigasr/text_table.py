"""Tables in plain text."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns with blanks: the first to the left, the rest to the right.

    rows:    cells; every row has the same number of them
    returns: one line per row
    """
    columns = zip(*rows, strict=True)
    first_width, *widths = (max(map(len, column)) for column in columns)
    lines = []
    for first, *cells in rows:
        aligned = map(str.rjust, cells, widths)
        lines.append("  ".join([first.ljust(first_width), *aligned]))
    return lines
