"""Reports: the terminal's table, JSON, and a page that asks for nothing from outside."""

import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
import torch

from gigasr.evaluation.plots import draw_svg, row_colours
from gigasr.evaluation.report import Report, best_rows, format_table, plot, to_html, to_json
from gigasr.evaluation.worst_cases import WorstCase

TABLE = {
    "lite": {"psnr_y": 25.0, "lpips": 0.2, "seconds": 1.5},
    "<lanczos>": {"psnr_y": math.inf, "lpips": 0.7, "seconds": 0.01},
}


@pytest.fixture
def report() -> Report:
    crops = {name: torch.full((3, 8, 8), 9, dtype=torch.uint8) for name in ("input", "truth", *TABLE)}
    images = {model: {"a.png": row} for model, row in TABLE.items()}
    plots = [each for each in (plot(TABLE, "seconds", "lpips", is_log=True),) if each]
    case = WorstCase("a.png", 'a "quoted" </script> prompt', 0.2, (0, 0), crops)
    return Report("t", {"images": "1"}, TABLE, plots, images, [case], {"sheet": crops["truth"]})


def test_the_table_has_a_row_per_model_and_a_column_per_metric() -> None:
    lines = format_table({"a": {"psnr_y": 25.0}, "longer": {"psnr_y": 1.5, "lpips": 0.12345}}).splitlines()
    assert [line.split() for line in lines] == [["PSNR-Y,", "dB", "LPIPS"], ["a", "25.00"], ["longer", "1.50", "0.123"]]
    assert len({len(line) for line in lines}) == 1


def test_json_holds_every_metric_and_an_infinite_one_is_null(report: Report) -> None:
    content = json.loads(to_json(report), parse_constant=lambda name: pytest.fail(name))
    assert content["images"]["lite"]["a.png"] == TABLE["lite"]
    assert content["table"]["<lanczos>"]["psnr_y"] is None


def test_the_page_holds_all_it_needs_and_escapes_what_it_is_given(report: Report) -> None:
    page = to_html(report)
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|https?:""", page)
    assert page.count("data:image/webp;base64,") == 5
    assert page.count("data:image/svg+xml;base64,") == 1
    assert "default-src 'none'" in page
    assert "&lt;lanczos&gt;" in page and "<lanczos>" not in page
    assert "a &#34;quoted&#34; &lt;/script&gt; prompt" in page


def test_the_data_of_the_script_is_json(report: Report) -> None:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', to_html(report), re.DOTALL)
    assert json.loads(data) == [
        {"metrics": {"lite": TABLE["lite"], "<lanczos>": TABLE["<lanczos>"] | {"psnr_y": None}}}
    ]


def test_a_page_without_cases_and_plots_is_a_table() -> None:
    page = to_html(Report("t", {}, {"a": {"fid": 3.0}}))
    assert "FID" in page and "svg+xml" not in page and "Cases" not in page


def test_the_best_row_is_the_highest_or_the_lowest_as_the_metric_asks() -> None:
    assert best_rows(TABLE, "lpips") == {"lite"}
    assert best_rows(TABLE, "psnr_y") == {"<lanczos>"}
    assert best_rows({"a": {"truncation": 1.0}}, "truncation") == set()


def test_a_plot_leaves_out_what_has_no_place() -> None:
    drawn = plot(TABLE, "seconds", "psnr_y", is_log=True)
    assert drawn is not None and list(drawn.points) == ["lite"]
    assert plot(TABLE, "seconds", "clip") is None


def drawn_points(svg: bytes) -> dict[str, tuple[float, float, str]]:
    """Row -> x and y in px, y downwards, and style."""
    name = "{http://www.w3.org/2000/svg}"
    groups = [group for group in ET.fromstring(svg).iter(f"{name}g") if group.get("id", "").startswith("point ")]
    marks = {group.get("id", "").removeprefix("point "): next(group.iter(f"{name}use")) for group in groups}
    return {
        row: (float(mark.get("x", "")), float(mark.get("y", "")), mark.get("style", "")) for row, mark in marks.items()
    }


def test_points_lie_inside_in_order_and_in_their_colours() -> None:
    rows = {str(i): {"seconds": 10.0**i, "fid": -3.0 * i} for i in range(-3, 3)}
    drawn = plot(rows, "seconds", "fid", is_log=True)
    assert drawn is not None
    colours = row_colours(rows)
    points = drawn_points(draw_svg(drawn, colours))
    assert list(points) == list(rows)
    xs, ys, styles = zip(*points.values(), strict=True)
    steps = torch.tensor([xs, ys]).diff()
    assert (steps > 1).all() and torch.allclose(steps, steps[:, :1].expand(2, 5), atol=1e-3)
    assert min(xs + ys) > 0 and max(xs) < 216 and max(ys) < 158.4
    assert all(colours[row] in style for row, style in zip(points, styles, strict=True))
    assert len(set(colours.values())) == len(rows)


def test_the_same_plot_is_the_same_bytes() -> None:
    drawn = plot(TABLE, "seconds", "lpips", is_curve=True)
    assert drawn is not None
    assert draw_svg(drawn, row_colours(TABLE)) == draw_svg(drawn, row_colours(TABLE))
