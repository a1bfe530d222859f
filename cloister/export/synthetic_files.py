"""Writes what belongs beside a file of synthetic records: facts, card and Croissant metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cloister.export.croissant import Publication, croissant
from cloister.export.synthetic_card import synthetic_card
from cloister.export.synthetic_facts import SyntheticFacts, write_facts
from cloister.files import bad_file, write_whole


@dataclass(frozen=True)
class Synthesized:
    """A written set.

    Attributes:
        file: The records.
        card: The card.
        metadata: The Croissant metadata.
        facts: The facts, as `NAME.synthetic.json` has them.
    """

    file: Path
    card: Path
    metadata: Path
    facts: SyntheticFacts


def shown_base(base: str) -> str:
    """Returns a base's name for readers elsewhere: of a folder on this machine, its last part."""
    return Path(base).name if Path(base).is_absolute() or Path(base).exists() else base


def write_beside(out: Path, facts: SyntheticFacts, publication: Publication) -> Synthesized:
    """Writes facts, card and metadata beside the records.

    Raises:
        BadFileError: One cannot be written.
    """
    card, metadata = out.with_suffix(".README.md"), out.with_suffix(".croissant.json")
    document = croissant(facts, publication, card.name)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_whole(card, synthetic_card(facts).encode())
        write_whole(metadata, text.encode())
    except OSError as error:
        raise bad_file(error, "written") from error
    write_facts(out, facts)
    return Synthesized(out, card, metadata, facts)
