"""Mends what typer and newer versions of click do to each other.

typer sets the help of an argument before it calls click's constructor, and click 8.5 and later
resets it to none. Without this, `cloister simulate --help` does not explain RECIPE. And both name
the commands that a mistyped one may have meant: only click does here.
"""

from __future__ import annotations

import inspect
import typing

import click
from typer.core import TyperGroup
from typer.models import ArgumentInfo


def mended(command: click.Command) -> click.Command:
    """Sets the declared help of every argument, and leaves suggestions to click, at every level.

    Args:
        command: From `typer.main.get_command`.

    Returns:
        The same command.
    """
    if isinstance(command, TyperGroup):
        command.suggest_commands = False
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        mended(inner)
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
