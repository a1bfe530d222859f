"""Stores and reads the adapter with which a study begins: fresh, or of a finished run (`--from`).

start/adapter       the finished run's released adapter, in wire format
start/began.json    the new run's statement about the finished one (`evidence.began`)

Both are written when the new run's folder is made, so that neither a resumed run nor its end needs
the finished run's folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, digest
from cloister.errors import AdapterFormatError, BadFileError, UsageError
from cloister.evidence.began import BEGAN
from cloister.files import bad_file, write_whole
from cloister.recipe import Recipe
from cloister.recipe.continued import continued
from cloister.server.former_run import FormerRun, read_former
from cloister.server.run_copy import refuse_copy
from cloister.server.run_directory import RunDirectory
from cloister.training.workspace import Workspace


def begin_with(recipe: Recipe, path: Path) -> tuple[Recipe, FormerRun]:
    """Reads a finished run, and returns the study that begins with its adapter.

    Raises:
        UsageError: The folder is not that of a finished run.
        BadFileError: A file in it is missing or damaged.
        RecipeError: Its adapter does not fit this study.
        RefusedError: It is a copy, whose ledgers may lack charges.
    """
    refuse_copy(path)
    former = read_former(path)
    return continued(recipe, former.former), former


def keep_start(run: RunDirectory, former: FormerRun) -> None:
    """Writes the starting adapter, and the facts about its run, into a new run's folder.

    Raises:
        BadFileError: It cannot be written.
    """
    try:
        _folder(run.path).mkdir(exist_ok=True)
        write_whole(_folder(run.path) / "adapter", former.payload)
        text = json.dumps(former.began.to_json(), indent=1) + "\n"
        write_whole(run.path / BEGAN, text.encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def starting_adapter(run: RunDirectory, recipe: Recipe, workspace: Workspace) -> Adapter:
    """Returns the adapter before round 1.

    Args:
        run: The study's folder.
        recipe: The study; `study.start` is the SHA-256 of another run's adapter.
        workspace: The study's workspace, which has the fresh adapter.

    Raises:
        BadFileError: The starting adapter is missing or changed.
        UsageError: It does not have the study's tensors.
    """
    if recipe.study.start is None:
        return workspace.whole
    place = _folder(run.path) / "adapter"
    try:
        payload = place.read_bytes()
    except OSError as error:
        raise BadFileError(
            f"{place}: the adapter with which the study begins is missing ({error.strerror}); "
            "restore it, or start a new run with --from"
        ) from error
    if digest(payload) != recipe.study.start:
        raise BadFileError(
            f"{place}: changed or damaged, since its SHA-256 is not study.start; restore it, or "
            "start a new run with --from"
        )
    try:
        return decode(payload, workspace.whole.shapes)
    except AdapterFormatError as error:
        raise UsageError(
            f"--from: {error}; the base's layers or the head of the two studies differ, so begin "
            "without --from, or set [model] and [lora] as the finished run has them"
        ) from error


def _folder(path: Path) -> Path:
    return path / "start"
