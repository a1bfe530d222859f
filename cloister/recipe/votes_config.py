"""The `[votes]` section: candidate texts, and how those that get votes are varied."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from cloister.bounds import LARGE, MOST_NAME, MOST_PATH, MOST_ROUNDS, Between, Text
from cloister.data.public_file import is_sha256
from cloister.errors import UsageError
from cloister.fields import check_bounds
from cloister.privacy.votes import FEWEST, MOST

# Longest continuation in tokens, as of `cloister synthesize`.
MOST_TOKENS = 8192
# What stands for a candidate's label in `prompt`.
LABEL = "{label}"


@dataclass(frozen=True, kw_only=True)
class VotesConfig:
    """The candidates of a study of votes.

    Attributes:
        public: A public JSONL file with the columns `text` and `label`: the candidates of round 1.
            If it has too few for a label, the generator writes variations of them.
        candidates: Candidates of a round, shared evenly among the labels. The noise of a count does
            not depend on it, so fewer candidates get clearer votes.
        rounds: Rounds of votes; each is a release, and ε is that of all of them.
        generator: A public causal language model (a folder or a hub id) at the coordinator, which
            varies the candidates that get votes. Absent: none, and one round.
        generator_sha256: SHA-256 that its weights must have. Absent: not checked.
        kept: Largest part of a text that a variation begins with; it begins with a random number of
            tokens up to this part, and the generator writes the rest.
        prompt: What the generator reads before that beginning; `{label}` stands for the label. It
            is no part of the text. Absent: nothing.
        most_tokens: Most tokens that the generator writes.
        temperature: Divides the generator's logits; 1: as it was trained.
        top_p: Draw from the likeliest tokens that have this probability together; 1: from all.
        threshold: Votes that are taken off every count before candidates are drawn by what is left;
            counts below it get no further. Absent: the standard deviation of the noise in a count.
    """

    public: Annotated[str, Text(MOST_PATH, least=1)] | None = None
    candidates: Annotated[int, Between(FEWEST, MOST)] = 100
    rounds: Annotated[int, Between(1, MOST_ROUNDS)] = 1
    generator: Annotated[str, Text(MOST_PATH, least=1)] | None = None
    generator_sha256: Annotated[str, Text(64)] | None = None
    kept: Annotated[float, Between(0.0, 1.0)] = 0.5
    prompt: Annotated[str, Text(MOST_NAME, lines=True)] | None = None
    most_tokens: Annotated[int, Between(1, MOST_TOKENS)] = 64
    temperature: Annotated[float, Between(0.01, 100.0)] = 1.0
    top_p: Annotated[float, Between(1e-3, 1.0)] = 1.0
    threshold: Annotated[float, Between(0.0, LARGE)] | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.public is None:
            raise UsageError(
                "public: missing; name a public JSONL file with the columns text and label"
            )
        if self.generator is None and self.rounds > 1:
            raise UsageError(
                f"generator: missing, and {self.rounds} rounds asked: from the second round on "
                "candidates are variations of those with votes; name a public language model, or "
                "set rounds = 1"
            )
        for place in re.findall(r"\{\w*\}", self.prompt or ""):
            if place != LABEL:
                raise UsageError(
                    f"prompt: {place} given, for which nothing is put; the generator would read it "
                    f"as it is: {LABEL} stands for the candidate's label"
                )
        if self.generator_sha256 is not None and not is_sha256(self.generator_sha256):
            raise UsageError("generator_sha256: 64 lower-case hexadecimal digits are needed")
