"""The table that `gigasr bench` prints."""

from typing import Any


def cell(value: float | None, width: int, digits: int = 0, percent: bool = False) -> str:
    """Format a number for a column; None gives blanks."""
    if value is None:
        return " " * width
    if percent:
        value *= 100
    return f"{value:>{width}.{digits}f}"


def format_benchmarks(result: dict[str, Any]) -> str:
    """Format the result of `run_benchmarks` as a table with a row per case.

    The last columns give the time divided by each peer's.
    """
    peers = result["cases"][-2:]
    head = f"{'':<34}{'s / MP':>9}{'GFLOP / MP':>12}{'% matmul':>10}{'% conv':>8}{'peak MB':>9}"
    lines = [head + "".join(f"{'/ ' + peer['name'].split('(')[0]:>18}" for peer in peers)]
    for case in result["cases"]:
        line = f"{case['name']:<34}{case['seconds_per_mp']:>9.3f}{cell(case.get('gflop_per_mp'), 12, 1)}"
        line += cell(case.get("share_of_matmul_peak"), 10, percent=True)
        line += cell(case.get("share_of_convolution_peak"), 8, percent=True) + f"{case['peak_mb']:>9.0f}"
        lines.append(line + "".join(f"{case['seconds_per_mp'] / peer['seconds_per_mp']:>18.3f}" for peer in peers))
    what = f"{result['device']}, {result['dtype']}, {result['threads']} threads, {result['clock']} time"
    return "\n".join([*lines, f"{what}; matmul {result['matmul_gflops']:.0f} GFLOP/s, torch {result['torch']}"])
