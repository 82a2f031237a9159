"""Write docs/cli.md from the commands themselves: python scripts/make_cli_docs.py"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from gigasr.cli import main as gigasr
from gigasr.cli.common import GroupedCommand

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Made from the commands by `python scripts/make_cli_docs.py`; `gigasr COMMAND --help` shows the same.
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The command and, of a group, all commands below it."""
    yield command, context
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands(below, click.Context(below, info_name=name, parent=context, **below.context_settings))


def describe(command: click.Command, context: click.Context) -> str:
    """One command in Markdown: usage, help, options."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", f"```\n{usage}\n```"]
    parts += map(paragraph, inspect.cleandoc(command.help or "").split("\n\n"))
    if isinstance(command, GroupedCommand):
        groups = command.option_groups(context)
    else:
        groups = {"Options": command.get_params(context)}
    for title, parameters in groups.items():
        heading = "option" if title == "Options" else title.lower()
        records = [record for each in parameters if (record := each.get_help_record(context))]
        cells = [[cell.replace("|", r"\|") for cell in record] for record in records if record[1]]
        rows = [f"| `{names}` | {text} |" for names, text in cells]
        parts.append("\n".join([f"| {heading} | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def paragraph(text: str) -> str:
    """A paragraph of a help text; one that click must not wrap starts with a backspace and is code below its title."""
    if not text.startswith("\b"):
        return " ".join(text.split())
    title, *lines = text.removeprefix("\b").strip().splitlines()
    return title + "".join(["\n\n```\n", inspect.cleandoc("\n".join(["", *lines])), "\n```"] if lines else [])


def render() -> str:
    """The whole page."""
    root = click.Context(gigasr, info_name="gigasr", **gigasr.context_settings)
    return "\n\n".join([HEAD.rstrip(), *(describe(*pair) for pair in commands(gigasr, root))]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
