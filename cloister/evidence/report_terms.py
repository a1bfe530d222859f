"""Explanations of a report's terms, for a reader who is not an engineer."""

from __future__ import annotations

from collections.abc import Iterator

from cloister.evidence.report_document import Block, Bullets, Heading

TERMS = (
    "ε (epsilon): how much a site's messages can reveal about one record or person. Anything that "
    "an adversary may see is at most e^ε times as likely with it in the data as without it, except "
    "with probability δ. Smaller is more private; ∞ means no protection.",
    "δ (delta): the probability with which the promise of ε may fail. It should be well below one "
    "in the number of records.",
    "Cap, or budget: the largest ε that the institution allows its data set to spend in its whole "
    "life, over all studies. Rounds that would exceed it are refused.",
    "Promise: fixed before a study begins, and true however early it stops. Spent so far: the "
    "total of the charged rounds until now; it shows progress and is not a promise.",
    "Round: one request of the coordinator and one answer of the site. Step: one batch of records "
    "within a round. ε grows with the number of steps.",
    "Rate: the probability with which each record is drawn into a batch. A smaller one costs less.",
    "Noise: the noise multiplier, the standard deviation of the random noise divided by the "
    "largest contribution of one record. A larger one costs less.",
    "Entry: the number of a line in the site's ledger, which is signed and chained to the line "
    "before it, so that nobody can change or remove one unnoticed.",
    "Cut off: a round that was charged and then interrupted. Nothing left the site for it; its "
    "cost stays spent, because records may have been drawn.",
    "PLD and RDP: two independent ways to compute ε, privacy loss distributions and Rényi "
    "differential privacy. PLD is the figure that counts; RDP is a looser bound and a check.",
)


def terms() -> Iterator[Block]:
    """Yields the section that explains the terms."""
    yield Heading("What the words mean")
    yield Bullets(TERMS)
