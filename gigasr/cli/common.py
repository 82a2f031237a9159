"""Shared parts of the commands: errors in one line, given options, progress bars."""

import functools
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

import click
from click.core import ParameterSource

from gigasr.cli.parameter_types import Choice
from gigasr.errors import EXPECTED, join_lines
from gigasr.options import Precision

if TYPE_CHECKING:
    from tqdm import tqdm

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130  # exit code of interrupted commands, as in shells
SEED_RANGE = click.IntRange(0, 2**63 - 1)
device_option = click.option("-g", "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
precision_option = click.option("--precision", type=Choice(get_args(Precision)), default="auto", show_default=True)


class GroupedCommand(click.Command):
    """A command with rarely used options under "Advanced", last in the help."""

    def __init__(self, *args: Any, common: Collection[str], **kwargs: Any) -> None:
        """Set up the command.

        common: names of the options outside "Advanced"
        """
        super().__init__(*args, **kwargs)
        self.common = common

    def option_groups(self, context: click.Context) -> dict[str, list[click.Parameter]]:
        """Group the options: heading of the help -> options."""
        groups: dict[str, list[click.Parameter]] = {"Options": [], "Advanced": []}
        for option in self.get_params(context):
            if isinstance(option, click.Option):
                is_first = option.name in self.common or option is self.get_help_option(context)
                groups["Options" if is_first else "Advanced"].append(option)
        return groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of the help per group."""
        for title, parameters in self.option_groups(ctx).items():
            with formatter.section(title):
                formatter.write_dl([record for each in parameters if (record := each.get_help_record(ctx))])


def report_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Report a user's errors in one line, with exit code 1.

    An interrupt gives one line and exit code 130. With --debug errors keep their traceback.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EXPECTED as error:
            if click.get_current_context().obj:
                raise
            text = (
                f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            )
            raise click.ClickException(join_lines(text) or type(error).__name__) from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)

    return wrapped


def is_given(name: str) -> bool:
    """Tell whether the command line gives an option of the running command."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def check_absent(target: Path, overwrite: bool) -> None:
    """Raise ValueError for an existing file or folder, unless `overwrite` is set."""
    if target.exists() and not overwrite:
        raise ValueError(f"{target}: exists already; choose another name, or add --overwrite")


@contextmanager
def progress_bar(total: int, label: str, unit: str, is_shown: bool = True) -> Iterator["tqdm[Any]"]:
    """Show a progress bar on a terminal; elsewhere the bar shows nothing."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=unit, disable=not (is_shown and sys.stderr.isatty()), leave=False) as bar:
        yield bar
