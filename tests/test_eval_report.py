"""Reports: the terminal's table, JSON, and a page that asks for nothing from outside."""

import json
import math
import re

import pytest
import torch

from gigasr.evaluation.cases import Case
from gigasr.evaluation.report import Report, best_rows, format_table, plot, to_html, to_json

TABLE = {
    "lite": {"psnr_y": 25.0, "lpips": 0.2, "seconds": 1.5},
    "<lanczos>": {"psnr_y": math.inf, "lpips": 0.7, "seconds": 0.01},
}


@pytest.fixture
def report() -> Report:
    crops = {name: torch.full((3, 8, 8), 9, dtype=torch.uint8) for name in ("input", "truth", *TABLE)}
    images = {model: {"a.png": row} for model, row in TABLE.items()}
    plots = [each for each in (plot(TABLE, "seconds", "lpips", is_log=True),) if each]
    case = Case("a.png", 'a "quoted" </script> prompt', 0.2, (0, 0), crops)
    return Report("t", {"images": "1"}, TABLE, plots, images, [case], {"sheet": crops["truth"]})


def test_the_table_has_a_row_per_model_and_a_column_per_figure() -> None:
    lines = format_table({"a": {"psnr_y": 25.0}, "longer": {"psnr_y": 1.5, "lpips": 0.12345}}).splitlines()
    assert [line.split() for line in lines] == [["PSNR-Y,", "dB", "LPIPS"], ["a", "25.00"], ["longer", "1.50", "0.123"]]
    assert len({len(line) for line in lines}) == 1


def test_json_holds_every_figure_and_an_infinite_one_is_null(report: Report) -> None:
    content = json.loads(to_json(report), parse_constant=lambda name: pytest.fail(name))
    assert content["images"]["lite"]["a.png"] == TABLE["lite"]
    assert content["table"]["<lanczos>"]["psnr_y"] is None


def test_the_page_holds_all_it_needs_and_escapes_what_it_is_given(report: Report) -> None:
    page = to_html(report)
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|https?:""", page)
    assert page.count("data:image/webp;base64,") == 5
    assert "default-src 'none'" in page
    assert "&lt;lanczos&gt;" in page and "<lanczos>" not in page
    assert "a &#34;quoted&#34; &lt;/script&gt; prompt" in page


def test_the_data_of_the_script_is_json(report: Report) -> None:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', to_html(report), re.DOTALL)
    assert json.loads(data) == [
        {"figures": {"lite": TABLE["lite"], "<lanczos>": TABLE["<lanczos>"] | {"psnr_y": None}}}
    ]


def test_a_page_without_cases_and_plots_is_a_table() -> None:
    page = to_html(Report("t", {}, {"a": {"fid": 3.0}}))
    assert "FID" in page and "<svg" not in page and "Cases" not in page


def test_the_best_row_is_the_highest_or_the_lowest_as_the_figure_asks() -> None:
    assert best_rows(TABLE, "lpips") == {"lite"}
    assert best_rows(TABLE, "psnr_y") == {"<lanczos>"}
    assert best_rows({"a": {"truncation": 1.0}}, "truncation") == set()


def test_a_plot_leaves_out_what_has_no_place() -> None:
    drawn = plot(TABLE, "seconds", "psnr_y", is_log=True)
    assert drawn is not None and list(drawn.points) == ["lite"]
    assert plot(TABLE, "seconds", "clip") is None


def test_points_and_marks_lie_inside_and_in_order() -> None:
    drawn = plot({str(i): {"seconds": 10.0**i, "fid": -3.0 * i} for i in range(-3, 3)}, "seconds", "fid", is_log=True)
    assert drawn is not None
    xs, ys = zip(*drawn.points.values(), strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
    assert min(xs + ys) > 0 and max(xs + ys) < 1
    assert [text for _, text in drawn.x.marks] == ["0.001", "0.01", "0.1", "1", "10", "100"]
