"""A model before and after it was compressed: size, latency, score, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.export.compress.distance import Reference
from cloister.export.compress.sparsity import zeros
from cloister.export.forms.finished import Finished, Logits
from cloister.export.forms.measuring import latency, score
from cloister.export.forms.public_test import PublicTest


@dataclass(frozen=True, kw_only=True)
class CompressedRow:
    """A line of the table.

    Attributes:
        model: `trained` or `compressed`.
        bytes: Of its weights, in float32.
        zipped: Of its weights as gzip compresses them; None: not computed.
        parameters: Numbers of base and head.
        zeros: Part of the base's that are zero.
        milliseconds: Median time of one text on this machine's CPU.
        score: The primary metric on the public test set; None: there is none.
        distance: Mean divergence from the trained model's outputs on the public texts, in nats.
    """

    model: str
    bytes: int
    zipped: int | None
    parameters: int
    zeros: float
    milliseconds: float
    score: float | None
    distance: float


def measured(
    name: str,
    finished: Finished,
    logits: Logits,
    public: PublicTest | None,
    reference: Reference,
    *,
    zipped: int | None = None,
) -> CompressedRow:
    """Measures a model.

    Args:
        name: What the table calls it.
        finished: Its network and task.
        logits: What is timed and scored.
        public: Public records to score on; None: nothing is scored.
        reference: The trained model's outputs on public texts, encoded as this model reads them.
        zipped: Bytes of the weights, compressed.
    """
    numbers = sum(parameter.numel() for parameter in finished.network.parameters())
    return CompressedRow(
        model=name,
        bytes=4 * numbers,
        zipped=zipped,
        parameters=numbers,
        zeros=zeros(finished.network),
        milliseconds=latency(finished, logits),
        score=None if public is None else score(finished, logits, public.examples),
        distance=reference.distance(finished.network),
    )
