"""Reports of an evaluation: a text table, JSON, and a self-contained HTML file."""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gigasr.evaluation.plots import Plot, draw_svg, row_colours
from gigasr.evaluation.worst_cases import WorstCase
from gigasr.text_table import align

Table = Mapping[str, Mapping[str, float]]  # row -> metric -> value


class MetricFormat(NamedTuple):
    """The label, digits and better direction of a metric."""

    label: str
    digits: int = 3
    better: int = 0  # 1 higher, -1 lower, 0 neither


METRIC_FORMATS = {
    "psnr_y": MetricFormat("PSNR-Y, dB", 2, 1),
    "ssim_y": MetricFormat("SSIM-Y", 3, 1),
    "lpips": MetricFormat("LPIPS", 3, -1),
    "niqe": MetricFormat("NIQE", 2, -1),
    "spectrum_error": MetricFormat("spectrum error, dB", 2, -1),
    "lr_psnr": MetricFormat("LR-PSNR, dB", 1, 1),
    "clip": MetricFormat("CLIP score", 4, 1),
    "fid": MetricFormat("FID", 2, -1),
    "patch_fid": MetricFormat("patch-FID", 2, -1),
    "fid_squeeze": MetricFormat("FID (squeeze)", 2, -1),
    "patch_fid_squeeze": MetricFormat("patch-FID (squeeze)", 2, -1),
    "inception_score": MetricFormat("Inception Score", 1, 1),
    "retrieval": MetricFormat("retrieval in 5", 3, 1),
    "seconds": MetricFormat("seconds", 3, -1),
    "peak_mb": MetricFormat("peak, MB", 0, -1),
    "truncation": MetricFormat("truncation", 2),
}


@dataclass
class Report:
    """The content of a report."""

    title: str
    facts: Mapping[str, str]  # description of the run: name -> text
    table: Table
    plots: Sequence[Plot] = ()
    images: Mapping[str, Table] = field(default_factory=dict)  # row -> image -> metric -> value
    cases: Sequence[WorstCase] = ()
    sheets: Mapping[str, Tensor] = field(default_factory=dict)  # name -> uint8 [3, H, W]


def format_table(table: Table) -> str:
    """Format a table (row -> metric -> value) as aligned text."""
    names = _columns(table.values())
    cells = [["", *(METRIC_FORMATS[name].label for name in names)]]
    cells += [[row, *(format_value(name, values.get(name)) for name in names)] for row, values in table.items()]
    return "\n".join(align(cells))


def format_value(name: str, value: float | None) -> str:
    """Format a metric with its usual digits; a missing value gives an empty text."""
    return "" if value is None else f"{value:.{METRIC_FORMATS[name].digits}f}"


def to_json(report: Report) -> str:
    """Convert the numbers of a report to JSON; infinities and NaN become null."""
    content = {"facts": dict(report.facts), "table": report.table, "images": report.images}
    return json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def to_html(report: Report) -> str:
    """Render a report as an HTML page that works offline.

    Styles, script, plots and pictures are inside the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    colours = row_colours(report.table)
    environment.filters |= {"picture": picture_address, "best": best_rows}
    page = environment.get_template("eval_report.html.j2")
    metrics_of = {case.image: {row: rows[case.image] for row, rows in report.images.items()} for case in report.cases}
    return page.render(
        report=report,
        colours=colours,
        plots=[svg_address(draw_svg(each, colours)) for each in report.plots],
        metrics=METRIC_FORMATS,
        metrics_of=metrics_of,
        names=_columns(report.table.values()),
        image_names=_columns(row for rows in metrics_of.values() for row in rows.values()),
        case_data=[{"metrics": _finite(metrics_of[case.image])} for case in report.cases],
        format_value=format_value,
    )


def plot(table: Table, x: str, y: str, is_log: bool = False, is_curve: bool = False) -> Plot | None:
    """Plot metric y against metric x over the rows with finite values of both.

    A logarithmic axis also needs x > 0. Returns None if no row qualifies.
    """
    pairs = {name: (row[x], row[y]) for name, row in table.items() if x in row and y in row}
    pairs = {
        name: pair for name, pair in pairs.items() if all(map(math.isfinite, pair)) and (pair[0] > 0 or not is_log)
    }
    if not pairs:
        return None
    return Plot(_axis_label(x), _axis_label(y), pairs, is_log, is_curve)


def _axis_label(name: str) -> str:
    arrows = {1: " ↑", -1: " ↓", 0: ""}
    return METRIC_FORMATS[name].label + arrows[METRIC_FORMATS[name].better]


def best_rows(table: Table, name: str) -> set[str]:
    """Find the rows with the best value of a metric; none if no direction is better."""
    values = {row: metrics[name] * METRIC_FORMATS[name].better for row, metrics in table.items() if name in metrics}
    return {row for row, value in values.items() if METRIC_FORMATS[name].better and value == max(values.values())}


def picture_address(image: Tensor) -> str:
    """Encode an image, uint8 [3, H, W], as a data URL with a lossless WebP."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def svg_address(svg: bytes) -> str:
    """Encode an SVG as a data URL."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _columns(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """List the metrics of all rows, each once, in the order of first appearance."""
    return list({name: None for row in rows for name in row})


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
