"""Reports say what is done, whatever a crash left of them."""

import json
from pathlib import Path

from gigasr.folders.report import REPORT, append_record, normalised_path, read_reports, report_name


def test_records_are_lines(tmp_path: Path) -> None:
    for number in range(3):
        append_record(tmp_path / "new" / REPORT, {"number": number, "name": "\u2028 ö"})
    lines = (tmp_path / "new" / REPORT).read_text().split("\n")
    assert [json.loads(line)["number"] for line in lines[:-1]] == [0, 1, 2]
    assert lines[-1] == ""


def test_the_latest_record_counts_in_whichever_report_it_stands(tmp_path: Path) -> None:
    for shard, seed in (((1, 1), 0), ((2, 2), 1), ((1, 2), 2)):
        record = {"input": "a.png", "output": "a_8x.png", "status": "done", "seed": seed}
        append_record(tmp_path / report_name(shard), record)
    append_record(tmp_path / REPORT, record | {"status": "failed", "seed": 3})
    ((output, latest),) = read_reports(tmp_path).items()
    assert (output, latest["seed"]) == (normalised_path(tmp_path / "a_8x.png"), 2)


def test_lines_that_are_cut_or_foreign_are_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    record = {"input": "a.png", "output": "a_8x.png", "status": "done"}
    append_record(tmp_path / REPORT, record)
    line = (tmp_path / REPORT).read_bytes()
    (tmp_path / REPORT).write_bytes(b'[1]\n{"status": 3}\n\xff\n' + line[:20])
    assert read_reports(tmp_path) == {}
    append_record(tmp_path / REPORT, record)
    assert len(read_reports(tmp_path)) == 1
