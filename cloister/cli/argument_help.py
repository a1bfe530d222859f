"""Restores the help of a command's arguments, which typer loses with click 8.5 and later.

typer sets the help of an argument before it calls click's constructor, and click 8.5 and later
resets it to none. Without this, `cloister simulate --help` does not explain RECIPE.
"""

from __future__ import annotations

import inspect
import typing

import click
from typer.models import ArgumentInfo


def restore(command: click.Command) -> click.Command:
    """Sets the declared help of every argument of a command and of all commands below it.

    Args:
        command: From `typer.main.get_command`.

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
