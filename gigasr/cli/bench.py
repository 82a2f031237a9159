"""gigasr bench: time and memory of the models."""

import json
import sys
from typing import Any

import click

from gigasr.cli.common import device_option, precision_option, report_errors
from gigasr.config.shipped import find_config


@click.command()
@device_option
@precision_option
@click.option("--side", default=256, show_default=True, type=click.IntRange(8), help="Side of the low-res input, px.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option(
    "--config",
    "configs",
    multiple=True,
    help="Also time the upsampler of this config (file or name), with random weights; may be repeated.",
)
@click.option("-n", "--model", "models", multiple=True, help="Also time this model; may be repeated.")
@click.option(
    "--aurasr", "has_aurasr", is_flag=True, help="Also time AuraSR, here and in its own package, with random weights."
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    show_default=True,
    help="cpu counts the process's CPU seconds, for a busy machine; best with OMP_NUM_THREADS=1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as JSON.")
@report_errors
def bench(as_json: bool, configs: tuple[str, ...], **options: Any) -> None:
    """Time upsampler_lite against Real-ESRGAN's networks, per output megapixel, in one run.

    The networks take turns; the times are medians. "% conv" is the share of the time that the network's convolutions
    take when they run alone.
    """
    from gigasr.evaluation.bench import plan_benchmarks, run_benchmarks
    from gigasr.evaluation.bench_table import format_benchmarks

    plans = plan_benchmarks(configs=map(find_config, configs), **options)
    result = run_benchmarks(plans, lambda name: click.echo(name, err=True) if sys.stderr.isatty() else None)
    click.echo(json.dumps(result, indent=2) if as_json else format_benchmarks(result))
