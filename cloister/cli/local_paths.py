"""Refuses a URL where a command needs a file or folder of this machine.

`Path("s3://bucket/run")` is the relative folder `s3:/bucket/run`, so without this a run would be
written below the current folder, and nothing would arrive where the user meant.
"""

from __future__ import annotations

from typing import Any

import click
from typer.models import TyperPath

from cloister.bounds import shortened
from cloister.names import is_url


class LocalPath(TyperPath):
    """A path of this machine.

    Args:
        declared: The type that the command declared.
    """

    def __init__(self, declared: TyperPath) -> None:
        super().__init__(
            exists=declared.exists,
            file_okay=declared.file_okay,
            dir_okay=declared.dir_okay,
            writable=declared.writable,
            readable=declared.readable,
            resolve_path=declared.resolve_path,
            allow_dash=declared.allow_dash,
            path_type=declared.type,
            executable=declared.executable,
        )

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the path.

        Raises:
            click.BadParameter: It is a URL.
        """
        if isinstance(value, str) and is_url(value):
            self.fail(
                f"{shortened(value)} is a URL; a file or folder of this machine is needed. A run "
                "that was copied to a URL (cloister simulate --out URL) is brought here by: "
                "cloister fetch URL FOLDER. To keep a finished model at a URL: cloister model "
                "promote RUN --as NAME --registry URL",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


def paths_of_this_machine(command: click.Command) -> click.Command:
    """Makes every path of a command, and of the commands below it, one of this machine.

    Args:
        command: From `typer.main.get_command`.

    Returns:
        The same command.
    """
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        paths_of_this_machine(inner)
    for parameter in command.params:
        if isinstance(parameter.type, TyperPath):
            parameter.type = LocalPath(parameter.type)
    return command
