"""Reads sites' public keys from a file and the command line."""

from __future__ import annotations

from pathlib import Path

from cloister.bounds import listed, shortened
from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, open_file
from cloister.json_text import read_json
from cloister.printable import one_line

# Most bytes of a file of keys: 10,000 members of 1.5 kB each, from `cloister member list --json`.
MOST_BYTES = 2**24
# Most characters of the reason in an error.
MOST_WHY = 200


def read_keys(file: Path | None, given: list[str]) -> dict[str, str]:
    """Reads public keys by site, in hex; `SITE=HEX` on the command line overrides the file.

    The file is `{"site": "hex", …}`, or the output of `cloister member list --json`.

    Raises:
        BadFileError: The file cannot be read, or a key is invalid.
        UsageError: An assignment is not of the form SITE=HEX.
    """
    keys: dict[str, str] = {}
    if file is not None:
        try:
            with open_file(file) as opened:
                document = read_json(opened.read(MOST_BYTES + 1), most_bytes=MOST_BYTES)
            if isinstance(document.get("members"), list):
                document = {
                    member["site"]: member["ledger_key"]
                    for member in document["members"]
                    if member["ledger_key"]
                }
            keys |= {str(site): str(value) for site, value in document.items()}
        except OSError as error:
            raise bad_file(error, "read") from error
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            why = one_line(str(error), MOST_WHY)
            raise BadFileError(
                f'{file}: not a file of keys ({why}); {{"site": "hex", …}} is needed'
            ) from (error)
    for assignment in given:
        site, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--key {shortened(assignment)}: SITE=HEX is needed")
        keys[site] = value
    for site, value in keys.items():
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise BadFileError(f"the key of {listed([site])}: 64 lower-case hex digits are needed")
    return keys
