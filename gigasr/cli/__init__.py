"""The command line.

A command imports heavy packages only at its run.
"""

import io
import signal
import sys
import threading

import click

from gigasr import __version__
from gigasr.cli.bench import bench
from gigasr.cli.evaluate import evaluate
from gigasr.cli.export import export
from gigasr.cli.models import models
from gigasr.cli.t2i import t2i
from gigasr.cli.train import train
from gigasr.cli.ui import ui
from gigasr.cli.upscale import upscale

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gigasr")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Upscale images in one pass, guided by text."""
    context.obj = debug
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name outside the terminal's encoding must not end a run
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-written stays
    if sys.platform == "linux":
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 64 MB.

    By default glibc returns blocks above 32 MB, or less, to the system, and the system clears new blocks page by page.
    Feature maps are that large, and clearing takes longer than filling.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have no mallopt
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 64 << 20)
        mallopt(M_TRIM_THRESHOLD, 128 << 20)


for command in (upscale, t2i, train, evaluate, models, export, bench, ui):
    main.add_command(command)
