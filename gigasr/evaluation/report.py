"""An evaluation for people: a table in the terminal, JSON, and one HTML file that needs nothing else."""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gigasr.evaluation.cases import Case
from gigasr.evaluation.plots import Plot, draw_svg, row_colours
from gigasr.text_table import align

Table = Mapping[str, Mapping[str, float]]  # row -> figure -> value


class Figure(NamedTuple):
    """How a figure is shown."""

    label: str
    digits: int = 3
    better: int = 0  # 1 higher, -1 lower, 0 neither


FIGURES = {
    "psnr_y": Figure("PSNR-Y, dB", 2, 1),
    "ssim_y": Figure("SSIM-Y", 3, 1),
    "lpips": Figure("LPIPS", 3, -1),
    "niqe": Figure("NIQE", 2, -1),
    "spectrum_error": Figure("spectrum error, dB", 2, -1),
    "lr_psnr": Figure("LR-PSNR, dB", 1, 1),
    "clip": Figure("CLIP score", 4, 1),
    "fid": Figure("FID", 2, -1),
    "patch_fid": Figure("patch-FID", 2, -1),
    "fid_squeeze": Figure("FID (squeeze)", 2, -1),
    "patch_fid_squeeze": Figure("patch-FID (squeeze)", 2, -1),
    "inception_score": Figure("Inception Score", 1, 1),
    "retrieval": Figure("retrieval in 5", 3, 1),
    "seconds": Figure("seconds", 3, -1),
    "peak_mb": Figure("peak, MB", 0, -1),
    "truncation": Figure("truncation", 2),
}


@dataclass
class Report:
    """What a report shows."""

    title: str
    facts: Mapping[str, str]  # what was done, in words
    table: Table
    plots: Sequence[Plot] = ()
    images: Mapping[str, Table] = field(default_factory=dict)  # row -> image -> figure -> value
    cases: Sequence[Case] = ()
    sheets: Mapping[str, Tensor] = field(default_factory=dict)  # name -> uint8 [3, H, W]


def format_table(table: Table) -> str:
    """Row -> figure -> value, as aligned text."""
    names = _columns(table.values())
    cells = [["", *(FIGURES[name].label for name in names)]]
    cells += [[row, *(format_value(name, values.get(name)) for name in names)] for row, values in table.items()]
    return "\n".join(align(cells))


def format_value(name: str, value: float | None) -> str:
    """A figure in its usual number of digits; empty where it was not measured."""
    return "" if value is None else f"{value:.{FIGURES[name].digits}f}"


def to_json(report: Report) -> str:
    """The numbers of a report as JSON; an infinite figure becomes null."""
    content = {"facts": dict(report.facts), "table": report.table, "images": report.images}
    return json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def to_html(report: Report) -> str:
    """A page that works without a network: styles, script, plots and pictures are inside."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    colours = row_colours(report.table)
    environment.filters |= {"picture": picture_address, "best": best_rows}
    page = environment.get_template("eval_report.html.j2")
    figures_of = {case.image: {row: rows[case.image] for row, rows in report.images.items()} for case in report.cases}
    return page.render(
        report=report,
        colours=colours,
        plots=[svg_address(draw_svg(each, colours)) for each in report.plots],
        figures=FIGURES,
        figures_of=figures_of,
        names=_columns(report.table.values()),
        image_names=_columns(row for rows in figures_of.values() for row in rows.values()),
        case_data=[{"figures": _finite(figures_of[case.image])} for case in report.cases],
        format_value=format_value,
    )


def plot(table: Table, x: str, y: str, is_log: bool = False, is_curve: bool = False) -> Plot | None:
    """Plot one figure against another over the rows that have both; None where none has."""
    pairs = {name: (row[x], row[y]) for name, row in table.items() if x in row and y in row}
    pairs = {
        name: pair for name, pair in pairs.items() if all(map(math.isfinite, pair)) and (pair[0] > 0 or not is_log)
    }
    if not pairs:
        return None
    return Plot(_axis_label(x), _axis_label(y), pairs, is_log, is_curve)


def _axis_label(name: str) -> str:
    arrows = {1: " ↑", -1: " ↓", 0: ""}
    return FIGURES[name].label + arrows[FIGURES[name].better]


def best_rows(table: Table, name: str) -> set[str]:
    """The rows with the best value of a figure."""
    values = {row: figures[name] * FIGURES[name].better for row, figures in table.items() if name in figures}
    return {row for row, value in values.items() if FIGURES[name].better and value == max(values.values())}


def picture_address(image: Tensor) -> str:
    """uint8 [3, H, W] -> an address that holds the picture itself, lossless"""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def svg_address(svg: bytes) -> str:
    """Return an address that holds an SVG itself."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _columns(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """The figures that any of the rows has, in the order of their first appearance."""
    return list({name: None for row in rows for name in row})


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
