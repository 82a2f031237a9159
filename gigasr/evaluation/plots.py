"""Plots of a report: one metric against another, drawn as SVG."""

import colorsys
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HUE_STEP = 137 / 360  # the golden angle, of the colour circle: neighbours in the table differ most


@dataclass(frozen=True)
class Plot:
    """One metric against another: a point per row."""

    x: str  # label of the axis
    y: str
    points: Mapping[str, tuple[float, float]]  # row -> (x, y), finite
    is_log: bool = False  # the x axis
    is_curve: bool = False  # joined in order


def row_colours(rows: Iterable[str]) -> dict[str, str]:
    """Return a colour for each row, "#rrggbb"."""
    colours = {}
    for number, row in enumerate(rows):
        rgb = colorsys.hls_to_rgb((210 / 360 + HUE_STEP * number) % 1, 0.45, 0.65)
        colours[row] = "#" + "".join(f"{round(255 * value):02x}" for value in rgb)
    return colours


def draw_svg(plot: Plot, colours: Mapping[str, str]) -> bytes:
    """Draw a plot as SVG, a point per row in the row's colour, without a legend."""
    import matplotlib
    from matplotlib.figure import Figure

    file = io.BytesIO()
    # text stays text, not outlines; the salt makes the bytes of equal plots equal
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gigasr", "font.size": 8}):
        drawing = Figure(figsize=(3, 2.2), layout="constrained")
        axes = drawing.subplots()
        axes.set(xlabel=plot.x, ylabel=plot.y, xscale="log" if plot.is_log else "linear")
        axes.grid(axis="y", alpha=0.3)
        axes.margins(0.1)
        if plot.is_curve:
            axes.plot(*zip(*plot.points.values(), strict=True), color="0.6", linewidth=1, gid="curve")
        for row, (x, y) in plot.points.items():
            axes.plot(x, y, "o", color=colours[row], gid=f"point {row}")
        drawing.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
