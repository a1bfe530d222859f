"""Reads the public prompts after which records are drawn, each with its label if it has one.

    {"prompt": "Write a patient's first message to a clinic.", "label": "triage"}

A prompt must be public: it becomes a part of the file, and no ε covers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.bounds import listed
from cloister.data.json_rows import json_rows
from cloister.errors import DataError, UsageError

# Most prompts of a file, and most characters of each.
MOST_PROMPTS, MOST_CHARACTERS = 100_000, 20_000


@dataclass(frozen=True)
class PublicPrompt:
    """A prompt.

    Attributes:
        text: What the model reads; empty: nothing, for texts from their beginning.
        label: The label of what it answers; None: records have no label.
    """

    text: str
    label: str | None = None


def read_prompts(file: Path | None, *, is_text: bool) -> tuple[PublicPrompt, ...]:
    """Reads a file of prompts.

    Args:
        file: A JSONL file with the column `prompt`, and `label` in every row or in none; None: no
            file.
        is_text: Whether the study learnt plain texts, which can be drawn without a prompt.

    Raises:
        UsageError: No file is given, and the model answers prompts only.
        DataError: A row cannot be used.
    """
    if file is None:
        if is_text:
            return (PublicPrompt(""),)
        raise UsageError(
            "--prompts: missing; a chat model answers prompts: give a JSONL file with a column "
            "prompt (and label). For a study of plain texts give --texts"
        )
    try:
        return _read(file)
    except DataError as error:
        raise DataError(f"--prompts: {error}") from error


def _read(file: Path) -> tuple[PublicPrompt, ...]:
    found: list[PublicPrompt] = []
    for row, value in json_rows(file):
        where = f"{file}, row {row}"
        if len(found) == MOST_PROMPTS:
            raise DataError(f"{file}: more than {MOST_PROMPTS:,} prompts; give fewer")
        if "prompt" not in value:
            raise DataError(
                f"{where}: no column 'prompt' (found: {listed(list(value)) or 'none'}); name "
                "the column of prompts 'prompt'"
            )
        text, label = value["prompt"], value.get("label")
        if not isinstance(text, str) or not text.strip() or len(text) > MOST_CHARACTERS:
            raise DataError(
                f"{where}: prompt is not a text of 1 to {MOST_CHARACTERS:,} characters; correct it"
            )
        if label is not None and (not isinstance(label, str) or not label.strip()):
            raise DataError(f"{where}: label is not a text; correct it, or leave it out")
        found.append(PublicPrompt(text, label))
    _check(found, file)
    return tuple(found)


def _check(found: Sequence[PublicPrompt], file: Path) -> None:
    if not found:
        raise DataError(f"{file}: no prompt in it; give at least one")
    if len({one.label is None for one in found}) > 1:
        raise DataError(f"{file}: some prompts have a label and some have none; make them alike")
