"""Help of a command's arguments, which one pair of versions loses.

typer sets the help of an argument before it calls click's constructor; click sets it too from 8.5
on, to none. Without this, `cloister simulate --help` says nothing of RECIPE.
"""

from __future__ import annotations

import inspect
import typing

import click
from typer.models import ArgumentInfo


def restore(command: click.Command) -> click.Command:
    """Sets the help of every argument, of the command and all below it, as it was declared.

    Args:
        command: As `typer.main.get_command` gives it.

    Returns:
        The same command.
    """
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        restore(inner)
    if command.callback is None:
        return command
    declared = typing.get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    for parameter in command.params:
        if not isinstance(parameter, click.Argument):
            continue
        for one in getattr(declared.get(parameter.name or ""), "__metadata__", ()):
            if isinstance(one, ArgumentInfo):
                parameter.help = one.help
    return command
