"""The rounds of a study of votes, from public texts to the texts that won.

A folder keeps what a run needs to go on after an interruption:

    candidates-NNN.json   the candidates of a round, written before the sites are asked
    votes-NNN.json        the noised counts over all sites that answered, and what each sent

A round whose counts are kept is not asked again. Everything here is a function of public texts and
noised counts: post-processing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import CloisterError
from cloister.evidence.bundle import Received
from cloister.protocol.candidates import CandidateText
from cloister.recipe.vote_study import VoteStudy
from cloister.voting.generator import TextGenerator
from cloister.voting.kept_rounds import Counted, KeptRound
from cloister.voting.resampling import first_candidates, next_candidates

# Asks the sites for their votes for the candidates of a round.
Ask = Callable[[int, Sequence[CandidateText]], Counted]


@dataclass(frozen=True)
class Voted:
    """What the rounds gave.

    Attributes:
        texts: The texts after the last round, with their labels.
        received: What each site sent, also in a round whose sum was lost.
        counted: By site, in how many rounds its votes were in the sum.
    """

    texts: tuple[CandidateText, ...]
    received: tuple[Received, ...]
    counted: Mapping[str, int]


def run_rounds(
    study: VoteStudy,
    ask: Ask,
    public: Sequence[CandidateText],
    generator: TextGenerator | None,
    folder: Path,
    on_round: Callable[[int, Counted], None] = lambda number, counted: None,
) -> Voted:
    """Runs all rounds, or those that an interrupted run has left.

    Args:
        study: The study.
        ask: Asks the sites. Where no site's votes came, the round is spent: its candidates stay.
        public: The public texts.
        generator: Writes variations; None: there is none.
        folder: Keeps each round's candidates and counts.
        on_round: Gets each round with its counts, once these are kept.

    Raises:
        CloisterError: No site voted in any round; or an error of `ask`.
        BadFileError: A file in the folder is damaged, or cannot be written.
    """
    received, votes, seed = list[Received](), study.votes, study.recipe.study.seed
    labels, by_site = study.recipe.task.labels, Counter[str]()
    texts: list[CandidateText] = []
    for number in range(1, votes.rounds + 1):
        kept = KeptRound(folder, number, votes.candidates, labels)
        candidates = kept.candidates()
        if candidates is None and number == 1:
            texts = first_candidates(
                public, labels, votes.candidates, seed=seed, generator=generator
            )
        if candidates is None:
            candidates = kept.keep_candidates(texts)
        counted = kept.counted()
        if counted is None:
            counted = ask(number, candidates)
            kept.keep_counted(counted)
        received += counted.received
        by_site.update(one.site for one in counted.received if counted.sites)
        on_round(number, counted)
        if kept.is_followed(votes.rounds):
            continue
        texts = list(candidates)
        if counted.sites:
            texts = next_candidates(
                candidates,
                counted.votes,
                threshold=counted.noise if votes.threshold is None else votes.threshold,
                number=number,
                seed=seed,
                generator=generator,
            )
    if not by_site:
        raise CloisterError(
            "no votes came in any round: each site had charged it and was interrupted before its "
            "release, or has no budget for it; begin another run, with a budget for it"
        )
    return Voted(tuple(texts), tuple(received), by_site)
