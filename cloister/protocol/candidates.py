"""The candidate texts of a round of votes: how they travel, and the only place that reads them.

Candidates are public: each is a text with the label of the records that may vote for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.errors import AdapterFormatError
from cloister.json_text import read_json

# Most characters of a text, as of a public prompt; a text is cut to the study's tokens anyhow.
MOST_TEXT = 20_000
# Most bytes of a message: the largest number of candidates with about 3,000 bytes each.
MOST_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class CandidateText:
    """A public text that private records may vote for.

    Attributes:
        text: The text.
        label: The label of the records that may vote for it.
    """

    text: str
    label: str


def encode_candidates(candidates: Sequence[CandidateText]) -> bytes:
    """Returns the candidates as the body of a question, in their order."""
    return canonical([[one.text, one.label] for one in candidates])


def decode_candidates(
    body: bytes, count: int, labels: Collection[str]
) -> tuple[CandidateText, ...]:
    """Reads the body of a question.

    Args:
        body: What the coordinator sent.
        count: How many candidates the plan lists.
        labels: The study's labels.

    Raises:
        AdapterFormatError: It does not have so many candidates, or one is no text of a known label.
    """
    try:
        rows = read_json(body, most_bytes=MOST_BYTES, most_values=4 * count + 4)
    except ValueError as error:
        raise AdapterFormatError(f"candidates: not readable ({error})") from error
    if type(rows) is not list or len(rows) != count:
        given = len(rows) if type(rows) is list else "no list"
        raise AdapterFormatError(f"candidates: {given} given; the plan lists {count}")
    found = []
    for number, row in enumerate(rows, 1):
        if type(row) is not list or [type(value) for value in row] != [str, str]:
            raise AdapterFormatError(f"candidate {number}: not a text with its label")
        text, label = row
        if not text.strip() or len(text) > MOST_TEXT:
            raise AdapterFormatError(
                f"candidate {number}: {len(text)} characters; a text of 1 to {MOST_TEXT:,} is "
                "needed"
            )
        if label not in labels:
            raise AdapterFormatError(
                f"candidate {number}: label {shortened(label)} is not one of the study's"
            )
        found.append(CandidateText(text, label))
    return tuple(found)
