"""Finds the built-in tasks: every module of this folder that has a table `TASK`.

A new task is one new file here. The table is read off the file's text, because importing a task
loads torch, and a command that only reads `site.toml` must not.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cloister.data.records import RecordKind

_TABLE = re.compile(r"^TASK = (\{.*?\})$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class BuiltIn:
    """The facts of a built-in task that are read without importing it.

    Attributes:
        kind: `task.kind` in a recipe.
        records: Which records it reads. It decides the network too: one output row for a text, one
            for each token of a sentence, the base's own vocabulary for a conversation.
        module: Its module, which has a function `make(config, labels, tokenizer, pad_id)`.
        usual: Whether it is the default task for such records.
    """

    kind: str
    records: RecordKind
    module: str
    usual: bool = True


def find_tasks(folder: Path = Path(__file__).parent) -> dict[str, BuiltIn]:
    """Returns the built-in tasks by kind, in order of their modules' names.

    Raises:
        ValueError: Two modules declare the same kind.
    """
    found: dict[str, BuiltIn] = {}
    for file in sorted(folder.glob("*.py")):
        table = _TABLE.search(file.read_text(encoding="utf-8"))
        if table is None:
            continue
        values = ast.literal_eval(table[1])
        kind = values["kind"]
        if kind in found:
            raise ValueError(f"two tasks have the kind {kind}")
        records = cast(RecordKind, values["records"])
        module = f"cloister.tasks.{file.stem}"
        found[kind] = BuiltIn(kind, records, module, values.get("usual", True))
    return found


def usual_task(records: RecordKind) -> str | None:
    """Returns the default kind of task for records; None: there is none."""
    fitting = (one for one in BUILT_IN.values() if one.records == records and one.usual)
    return next((one.kind for one in fitting), None)


BUILT_IN = find_tasks()
