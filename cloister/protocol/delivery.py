"""The coordinator's claim about the final adapter that it delivers to a site.

The adapter is in the question itself, in wire format; the claim is the question's body. The
coordinator's signature covers both. The score is the coordinator's claim: the site did not measure
it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass

from cloister.bounds import LARGEST_INTEGER
from cloister.errors import AdapterFormatError
from cloister.json_text import read_json

# Most bytes of a claim: three short values.
MOST_BYTES = 1_000
# The file in a delivered adapter's folder that says where it came from.
NOTE = "delivery.json"
_METRIC = re.compile("[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Claim:
    """The adapter's score, as the coordinator claims it.

    Attributes:
        metric: The task's primary metric.
        score: Its value on the coordinator's public test set; None: it is not a finite number.
        rounds: Number of closed rounds.
    """

    metric: str
    score: float | None
    rounds: int

    def to_bytes(self) -> bytes:
        """Returns the claim as the body of a question."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> Claim:
        """Reads a question's body.

        Raises:
            AdapterFormatError: The body is not a claim.
        """
        try:
            fields = read_json(body, most_bytes=MOST_BYTES)
        except ValueError as error:
            raise AdapterFormatError(f"delivery: {error}") from error
        if not isinstance(fields, dict) or set(fields) != {"metric", "score", "rounds"}:
            raise AdapterFormatError("delivery: metric, score and rounds are needed")
        metric, score, rounds = fields["metric"], fields["score"], fields["rounds"]
        if not isinstance(metric, str) or not _METRIC.fullmatch(metric):
            raise AdapterFormatError("delivery: metric is not the name of a metric")
        if score is not None and (type(score) not in (int, float) or not math.isfinite(score)):
            raise AdapterFormatError("delivery: score is not a finite number")
        if type(rounds) is not int or not 0 <= rounds <= LARGEST_INTEGER:
            raise AdapterFormatError("delivery: rounds is not a number of rounds")
        return cls(metric, None if score is None else float(score), rounds)
