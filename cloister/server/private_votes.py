"""Asks sites for their votes for public candidate texts, in clear or as one secure sum.

With noise of its own each site sends its noised counts, which are added here. Where the noise is
shared, counts come under masks, and their sum alone is seen (`server.secure`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from flwr.serverapp import Grid

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encoded_length
from cloister.errors import QuorumError
from cloister.evidence.bundle import Received
from cloister.privacy.noised_ratio import Floats
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import HISTOGRAM, votes_shapes
from cloister.protocol.exchange import RoundRequest, Step
from cloister.recipe import Recipe
from cloister.recipe.vote_study import noise_of_a_count
from cloister.server.collect import secure_rounds, secure_study
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.ports import Observer, Participants
from cloister.server.prepare import Prepared, prepare
from cloister.server.replies import Awaited, Replies, ReplyTerms, read_replies
from cloister.server.report import RoundReport
from cloister.server.rounds import is_counted, is_over
from cloister.server.secure import SecureRounds
from cloister.server.study import ServerStudy
from cloister.strategies.build import make_strategy
from cloister.strategies.strategy import ServerState


@dataclass(frozen=True)
class VotesCame:
    """A round's votes, as they came.

    Attributes:
        votes: The sum of the noised histograms, [K].
        noise: The standard deviation of the noise in a count.
        sites: The sites whose votes are in the sum; empty: there is no sum.
        received: What each site sent.
        report: The figures of the round.
    """

    votes: Floats
    noise: float
    sites: tuple[str, ...]
    received: tuple[Received, ...]
    report: RoundReport


def voting_study(
    recipe: Recipe, plan: Plan, participants: Participants, observer: Observer
) -> ServerStudy:
    """Returns what asking sites needs of a study of votes; it has no adapter.

    Args:
        recipe: The study's.
        plan: The plan of one site; all share what is read from it.
        participants: The sites, and how they are asked.
        observer: Gets the events of the study.
    """
    return ServerStudy(
        digest=recipe.digest(),
        participants=participants,
        observer=observer,
        strategy=make_strategy(recipe.strategy, participants.names),
        state=ServerState(Adapter({}), 0),
        num_rounds=recipe.federation.num_rounds,
        min_sites=recipe.federation.min_sites,
        trained=lambda number: frozenset(),
        max_update_norm=None,
        score=lambda state: {},
        save=lambda state, report: None,
        secure=secure_study(recipe, plan),
    )


@dataclass
class VoteRounds:
    """Asks the sites of a study, round after round; before the first one whether they take part.

    Attributes:
        grid: Flower's.
        study: The study.
        plans: Each site's plan, as the coordinator proposes it.
    """

    grid: Grid
    study: ServerStudy
    plans: Mapping[str, Plan]
    _epsilon: dict[str, float] = field(default_factory=dict)

    @cached_property
    def _asker(self) -> Dispatcher:
        people, observer = self.study.participants, self.study.observer
        return Dispatcher(
            self.grid, people.nodes, people.patience, people.voice, observer.event, people.since
        )

    @cached_property
    def _secure(self) -> SecureRounds | None:
        return secure_rounds(self.study, self._asker)

    @cached_property
    def _prepared(self) -> Prepared:
        return prepare(self.study, self._asker)

    def ask(self, number: int, body: bytes, candidates: int) -> VotesCame:
        """Asks every site for its votes in a round.

        Sites that were asked before, for example before a crash, send the same bytes again; with
        shared noise a site whose keys are lost says that its round is spent.

        Args:
            number: The round.
            body: The candidates (`protocol.candidates`).
            candidates: K.

        Raises:
            QuorumError: Too few sites take part, are connected, or answered.
        """
        study, started = self.study, time.monotonic()
        waits_for_all = study.secure is None and study.min_sites is None
        enough = study.enough - len(self._prepared.unfit) * waits_for_all
        nodes = self._prepared.among(
            self._asker.connected(len(study.sites), enough, time.monotonic())
        )
        if len(nodes) < enough:
            waited = study.participants.patience.round
            raise QuorumError(
                f"{len(nodes)} sites are connected after {waited:.0f} s, {enough} are needed; "
                "start the others, then resume the run"
            )
        if self._secure is None:
            votes, replies = self._in_clear(number, body, candidates, nodes)
            why = f"cut off at {', '.join(sorted(replies.spent))}"
        else:
            found = self._secure.run(number, body, candidates, nodes)
            votes, replies, why = None, found.replies, found.why
            if found.total is not None:
                grid = next(iter(self.plans.values())).shared_vote_noise().grid
                votes = found.total.astype(np.float64) * grid
        over = is_over(study, replies.retired, number - 1)
        counts = not over and is_counted(replies, study, number, self._prepared.unfit)
        sites = tuple(sorted(replies.counted)) if counts and votes is not None else ()
        if not sites and not over:
            study.observer.note(
                f"round {number} was charged and {why or 'has no sum'}: it stays spent, and its "
                "candidates stay as they are"
            )
        return VotesCame(
            votes=np.zeros(candidates) if votes is None or not sites else votes,
            noise=noise_of_a_count({site: self.plans[site] for site in sites}),
            sites=sites,
            received=tuple(
                Received(number, site, sha256, head, ReleaseKind.VOTE)
                for site, (sha256, head) in sorted(replies.received.items())
            ),
            report=self._report(number, replies, len(body) * len(nodes), started),
        )

    def _in_clear(
        self, number: int, body: bytes, candidates: int, nodes: Nodes
    ) -> tuple[Floats, Replies]:
        study, shapes, total = self.study, votes_shapes(candidates), np.zeros(candidates)

        def read(payload: bytes) -> Floats:
            return decode(payload, shapes, dtype="float32")[HISTOGRAM].astype(np.float64)

        def take(site: str, votes: Floats) -> None:
            np.add(total, votes, out=total)

        request = RoundRequest(study.digest, number, b"", Step.VOTE, body)
        awaited = Awaited(encoded_length(shapes, "float32"), read)
        answers = self._asker.ask(request, nodes, study.enough, time.monotonic())
        terms = ReplyTerms(study.digest, study.sites, study.keys)
        replies = read_replies(answers, terms, number, lambda site: awaited, take)
        return total, replies

    def _report(self, number: int, replies: Replies, down: int, started: float) -> RoundReport:
        self._epsilon |= replies.epsilon
        absent = (
            site
            for site in self.study.sites
            if site not in replies.counted and site not in replies.retired
        )
        return RoundReport(
            round=number,
            metrics={},
            epsilon=dict(self._epsilon),
            received=dict(replies.received),
            bytes_up=replies.bytes,
            bytes_down=down,
            seconds=time.monotonic() - started,
            seconds_scoring=0.0,
            missing=tuple(absent),
            retired=tuple(sorted(replies.retired)),
            refused=dict(replies.refused),
            update_norm=0.0,
            aggregation_error=None,
        )
