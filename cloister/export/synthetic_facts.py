"""`NAME.synthetic.json`: what is known of a file of synthetic records, beside the file.

It ties the file, by its SHA-256, to the model that wrote it (or to the votes that chose its
records) and to the promises that the sites got: what is made from a private model without its
records has the same ε (post-processing, Dwork & Roth 2014, proposition 2.1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from cloister.data.outputs import sha256_of
from cloister.errors import BadFileError, RefusedError
from cloister.files import bad_file, open_file, write_whole
from cloister.json_text import read_json
from cloister.ledger.stated import Stated
from cloister.privacy import adversaries

VERSION = 1
# A promise takes about 300 bytes; this is more than a thousand sites have.
MOST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class SyntheticFacts:
    """The facts of a file of synthetic records.

    Attributes:
        file: The file's name.
        sha256: SHA-256 of its bytes.
        records: Number of records.
        columns: The names of its columns.
        study: The study that trained the model, or in which sites voted.
        digest: Digest of the study's recipe; empty: the adapter was alone.
        base: The base, as the adapter names it; of a folder, its last part.
        base_sha256: SHA-256 of its weights.
        adapter_sha256: Fingerprint of the adapter (`evidence.fingerprint`).
        public: Name of the public file that trained the adapter too; empty: none.
        promises: What each site was promised; None: not known, so ε = ∞.
        sampling: How the records were drawn.
        dropped: How many drawn texts were left out, by reason.
        created: The date in UTC, as in 2026-01-31.
        voted: Of records that were chosen by votes: in how many rounds each site voted; empty: a
            model that was trained wrote them. The base is then the generator's, or empty, there is
            no adapter, and `public` is the file of the first candidates.
        alone: What each of these sites was promised against all other sites together, where they
            shared the noise; else empty.
    """

    file: str
    sha256: str
    records: int
    columns: tuple[str, ...]
    study: str
    digest: str
    base: str
    base_sha256: str
    adapter_sha256: str
    public: str
    promises: Mapping[str, Stated | None]
    sampling: Mapping[str, str | int | float]
    dropped: Mapping[str, int]
    created: str
    voted: Mapping[str, int] = field(default_factory=dict)
    alone: Mapping[str, Stated] = field(default_factory=dict)

    @property
    def largest(self) -> Stated | None:
        """Returns a promise that holds at every site; None: ε of a site is ∞ or not known.

        It has the largest ε and the largest δ of the sites, as an (ε, δ) promise stays true if
        either grows, and the adversaries against whom all of them hold.
        """
        known = [one for one in self.promises.values() if one is not None]
        if not known or len(known) < len(self.promises):
            return None
        largest = max(known, key=lambda one: (one.epsilon, one.delta))
        if not math.isfinite(largest.epsilon) or len({one.unit for one in known}) > 1:
            return None
        return replace(
            largest,
            delta=max(one.delta for one in known),
            adversaries=reduce(adversaries.weaker, [one.adversaries for one in known]),
        )

    @property
    def largest_alone(self) -> Stated | None:
        """Returns what holds at every site against all other sites together, as `largest` does.

        None: no noise was shared, so `largest` holds against them too; or a promise is not known.
        """
        if not self.alone or self.largest is None:
            return None
        found = [self.alone.get(site, one) for site, one in self.promises.items()]
        known = [one for one in found if one is not None]
        largest = max(known, key=lambda one: (one.epsilon, one.delta))
        return replace(
            largest, delta=max(one.delta for one in known), adversaries=adversaries.ALL_OTHERS
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the facts as JSON values."""
        promises = {
            site: None if one is None else one.to_json() for site, one in self.promises.items()
        }
        alone = {site: one.to_json() for site, one in self.alone.items()}
        return {"version": VERSION, **asdict(self), "promises": promises, "alone": alone}


def facts_file(records: Path) -> Path:
    """Returns the path of the facts of a file of synthetic records."""
    return records.with_name(f"{records.stem}.synthetic.json")


def write_facts(records: Path, facts: SyntheticFacts) -> None:
    """Writes the facts beside the file.

    Raises:
        BadFileError: They cannot be written.
    """
    text = json.dumps(facts.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_whole(facts_file(records), text.encode())
    except OSError as error:
        raise bad_file(error, "written") from error


def read_facts(records: Path) -> SyntheticFacts | None:
    """Reads the facts beside a file, and checks that they are of this file.

    Returns:
        The facts; None: there are none beside it.

    Raises:
        BadFileError: They are damaged.
        RefusedError: The file was changed since they were written.
    """
    place = facts_file(records)
    if not place.exists():
        return None
    try:
        with open_file(place) as file:
            found = read_json(file.read(MOST_BYTES + 1), most_bytes=MOST_BYTES)
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']!r}, but this one reads {VERSION}")
        facts = _facts(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFileError(
            f"{place}: cannot be read ({error}); restore it, or move it away to use the records as "
            "a file that you declare public"
        ) from error
    if facts.sha256 != sha256_of(records):
        raise RefusedError(
            f"{records}: was changed since {place.name} was written, so its ε is not known; "
            "restore the file, or move the facts away and declare the file public yourself"
        )
    return facts


def _facts(found: Mapping[str, Any]) -> SyntheticFacts:
    """Reads the JSON of `to_json`.

    Raises:
        KeyError: A field is missing.
        TypeError: A field is unknown.
        ValueError: A field has another type.
    """
    fields = {key: value for key, value in found.items() if key != "version"}
    promises = {
        str(site): None if one is None else Stated.from_json(one)
        for site, one in fields.pop("promises").items()
    }
    alone = {str(site): Stated.from_json(one) for site, one in fields.pop("alone", {}).items()}
    columns = tuple(map(str, fields.pop("columns")))
    kinds = {"records": int, "sampling": dict, "dropped": dict, "voted": dict}
    for name, value in fields.items():
        if type(value) is not kinds.get(name, str):
            raise ValueError(f"{name} is not of its type")
    for name in ("dropped", "voted"):
        if any(type(number) is not int for number in fields.get(name, {}).values()):
            raise ValueError(f"{name}: whole numbers are needed")
    return SyntheticFacts(**fields, promises=promises, alone=alone, columns=columns)
