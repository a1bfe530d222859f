"""`OUT.votes/` beside the output of a simulated study of votes, so that it can be continued.

study.json     what is run; another study is not continued
candidates-*   and votes-*: the rounds so far (`voting.vote_rounds`)
ledgers/       the sites' ledgers, each with its key
certificates/  written at the end
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloister.errors import UsageError
from cloister.files import bad_file, open_file, write_whole
from cloister.ledger.storage import LedgerFile
from cloister.owner_only import FILE
from cloister.protocol.candidates import MOST_BYTES


def begin_folder(folder: Path, declared: Mapping[str, Any]) -> None:
    """Begins a run in its folder, or goes on in it.

    Args:
        folder: `OUT.votes`, which exists and is this process's.
        declared: What is run; an interrupted run goes on only if this is the same. What an earlier
            run left is cleared if nothing was charged for it.

    Raises:
        UsageError: It has another study, for which a site was charged.
        BadFileError: It cannot be read or written.
    """
    path = folder / "study.json"
    text = json.dumps(dict(declared), sort_keys=True, indent=1).encode()
    try:
        found = b""
        if path.exists():
            with open_file(path) as file:
                found = file.read(MOST_BYTES)
        if found == text:
            return
        if found and not _cleared(folder):
            raise UsageError(
                f"{folder}: has another study of votes, or the same with other options or another "
                "public file; its sites were charged for that one: give another --out"
            )
        write_whole(path, text, FILE)
    except OSError as error:
        raise bad_file(error, "written") from error


def _cleared(folder: Path) -> bool:
    """Removes ledgers and candidates for which nothing was charged; False: something was."""
    ledgers = [LedgerFile(path) for path in sorted((folder / "ledgers").glob("*.ledger"))]
    begun = [ledger for ledger in ledgers if ledger.is_begun]
    if any(entry.fields["kind"] == "reserve" for one in begun for entry in one.entries()):
        return False
    if (folder / "ledgers").exists():
        shutil.rmtree(folder / "ledgers")
    for pattern in ("candidates-*.json", "votes-*.json"):
        for kept in folder.glob(pattern):
            kept.unlink()
    return True
