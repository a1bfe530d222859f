"""Sites' public keys as a command line gives them."""

from __future__ import annotations

import json
from pathlib import Path

from cloister.errors import BadFileError, UsageError


def read_keys(file: Path | None, given: list[str]) -> dict[str, str]:
    """Public keys by site, in hex; `SITE=HEX` on the command line goes before the file.

    The file is `{"site": "hex", …}`, or what `cloister member list --json` prints.

    Raises:
        BadFileError: The file cannot be read, or a key is none.
        UsageError: An assignment is none.
    """
    keys: dict[str, str] = {}
    if file is not None:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(document.get("members"), list):
                document = {
                    member["site"]: member["ledger_key"]
                    for member in document["members"]
                    if member["ledger_key"]
                }
            keys |= {str(site): str(value) for site, value in document.items()}
        except (
            OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError
        ) as error:  # fmt: skip
            raise BadFileError(
                f'{file}: no keys ({error}); {{"site": "hex", …}} is needed'
            ) from error
    for assignment in given:
        site, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--key {assignment}: SITE=HEX is needed")
        keys[site] = value
    for site, value in keys.items():
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise BadFileError(f"the key of {site}: 64 lower-case hex digits are needed")
    return keys
