"""The command line: options in, one clear line out. Heavy packages are imported by the command that needs them."""

import click

from gigasr import __version__
from gigasr.cli.evaluate import bench, evaluate
from gigasr.cli.models import models
from gigasr.cli.t2i import t2i
from gigasr.cli.train import train
from gigasr.cli.ui import ui
from gigasr.cli.upscale import upscale


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gigasr")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Enlarge images in one pass, guided by text."""
    context.obj = debug


for command in (upscale, t2i, train, evaluate, models, bench, ui):
    main.add_command(command)
