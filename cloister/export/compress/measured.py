"""Measures a model before and after compression: size, latency, score and distance of outputs."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.export.compress.distance import Reference
from cloister.export.compress.sparsity import zeros
from cloister.export.forms.finished import Finished, Logits
from cloister.export.forms.measuring import latency, score
from cloister.export.forms.public_test import PublicTest


@dataclass(frozen=True, kw_only=True)
class CompressedRow:
    """A model's line in the table that compares it before and after compression.

    Attributes:
        model: `trained` or `compressed`.
        bytes: Size of its weights in float32.
        zipped: Size of its weights after gzip; None: not computed.
        parameters: Number of parameters in base and head.
        zeros: Share of the base's parameters that are zero.
        milliseconds: Median time for one text on this machine's CPU.
        score: The primary metric on the public test set; None: there is no test set.
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
    """Measures one model for the table.

    Args:
        name: The model's name in the table.
        finished: The model's network and task.
        logits: The function that is timed and scored.
        public: Public records to score on; None: nothing is scored.
        reference: The trained model's outputs on public texts, encoded for this model.
        zipped: Size of the weights after gzip; None: not computed.
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
