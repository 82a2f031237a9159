"""Options of commands from the fields of option objects, and back."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from gigasr.cli.parameter_types import Choice
from gigasr.options import Options, Rule

T = TypeVar("T", bound=Options)
Command = TypeVar("Command", bound=Callable[..., Any])


def add_options(kind: type[Options], *names: str) -> Callable[[Command], Command]:
    """Add options to a command, one per named field of the option object.

    Type, limits, default and help are the field's.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            rule, default = kind.rules()[name], getattr(kind, name)
            flags = [f"--{name.replace('_', '-')}"]
            if rule.short:
                flags.insert(0, rule.short)
            parameter_type = _parameter_type(kind.field_types()[name], rule)
            command = click.option(
                *flags,
                type=parameter_type,
                is_flag=parameter_type is click.BOOL,
                default=default,
                show_default=default not in (None, "") and "[default" not in rule.help,
                help=rule.help,
            )(command)
        return command

    return decorate


def _parameter_type(kind: Any, rule: Rule) -> click.ParamType:
    """Return click's type for the values of a field."""
    if get_origin(kind) is Literal:
        return Choice(get_args(kind))
    low, high = rule.limits
    if kind is float:
        return click.FloatRange(low, high)
    if kind is int:
        return click.IntRange(None if low is None else int(low), None if high is None else int(high))
    return click.BOOL if kind is bool else click.STRING


def read_options(kind: type[T], given: Mapping[str, Any], **more: Any) -> T:
    """Make an option object from the values of a command.

    more: values that replace the command's
    """
    values = {**given, **more}
    return kind(**{each.name: values[each.name] for each in fields(kind) if each.name in values})
