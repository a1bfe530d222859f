"""A study of votes at its coordinator: connected sites vote for public texts, and records come out.

In the run's folder:

    votes/          the candidates and the noised counts of every round (`voting.vote_rounds`)
    records/        synthetic.jsonl with its card and metadata, and `cloister.json`, which names the
                    base of the vectors
    certificates/   what each site signed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.serverapp import Grid

from cloister.adapter.tensors import Adapter
from cloister.deployment.coordinator.journal import note
from cloister.deployment.coordinator.member_sites import (
    check_members,
    connected_sites,
    kept_certificates,
    plans_of,
)
from cloister.deployment.coordinator.members import Member
from cloister.deployment.coordinator.ports import Journal
from cloister.deployment.coordinator.publication import kept_publication
from cloister.evidence.site_facts import site_facts
from cloister.export.synthetic_files import Synthesized
from cloister.files import bad_file, write_whole
from cloister.ledger.stated import Stated
from cloister.models.base import with_base_sha256
from cloister.owner_only import private_folder
from cloister.privacy.plan import Plan
from cloister.privacy.votes import votes_shapes
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.recipe import Recipe, validated
from cloister.recipe.vote_study import VoteStudy, read_vote_study
from cloister.server.private_votes import VoteRounds, voting_study
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.server.study import ServerStudy
from cloister.voting.first_candidates import public_texts
from cloister.voting.generator import TextGenerator, open_generator
from cloister.voting.kept_rounds import Counted
from cloister.voting.vote_rounds import Voted, run_rounds
from cloister.voting.written import about_records, write_records

RECORDS = "records"
FILE = "synthetic.jsonl"


def resolved_votes(path: Path, members: Mapping[str, Member]) -> Recipe:
    """Returns a study of votes as sites get it: with the base's hash, and the sites.

    Args:
        path: The study's file.
        members: The sites that take part, by name.

    Raises:
        UsageError: No site takes part, or votes cannot be what is asked.
        RecipeError: Fields are invalid.
        DataError: The public texts cannot be read, or are too few.
        ModelFileError: The base cannot be found, or is not the one that the study names.
    """
    check_members(members)
    study = read_vote_study(path, tuple(members[name].public_records for name in sorted(members)))
    recipe, votes = study.recipe, study.votes
    public_texts(study)
    model = with_base_sha256(recipe.model)
    public = str(Path(votes.public or "").expanduser().absolute())  # the executor runs elsewhere
    generator = votes.generator
    if generator is not None and Path(generator).expanduser().exists():
        generator = str(Path(generator).expanduser().absolute())
    votes = replace(votes, public=public, generator=generator)
    return validated(replace(recipe, model=model, votes=votes))


@dataclass
class DeployedVotes:
    """A study of votes over a network, ready to run.

    Attributes:
        run: The run's folder.
        study: The study.
        members: The sites that take part, by name.
        plans: Each site's plan, as the coordinator proposes it.
        public: The public texts.
        generator: Writes variations; None: there is none.
        server: The study, as rounds ask for it.
        observer: Gets the events.
    """

    run: RunDirectory
    study: VoteStudy
    members: Mapping[str, Member]
    plans: Mapping[str, Plan]
    public: Sequence[CandidateText]
    generator: TextGenerator | None
    server: ServerStudy
    observer: Journal
    _reports: dict[int, RoundReport] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        run: RunDirectory,
        members: Mapping[str, Member],
        allowed: Callable[[], Mapping[str, Member]],
        key: Ed25519PrivateKey,
        heads: Path,
    ) -> DeployedVotes:
        """Reads the public texts and loads the generator; see `DeployedStudy.open`.

        Raises:
            CloisterError: The study is impossible; raised before any site is asked.
        """
        recipe = run.recipe()
        study, plans = VoteStudy(recipe), plans_of(recipe, members)
        observer = Journal(recipe, run)
        people = connected_sites(recipe, run, members, allowed, key, heads)
        plan = next(iter(plans.values()))
        return cls(
            run=run,
            study=study,
            members=members,
            plans=plans,
            public=public_texts(study),
            generator=open_generator(study.votes, recipe.study.seed, recipe.machine.device),
            server=voting_study(recipe, plan, people, observer),
            observer=observer,
        )

    @property
    def longest(self) -> Adapter:
        """Name and shape of the counts that a site sends."""
        shapes = votes_shapes(self.study.votes.candidates)
        return Adapter({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})

    def execute(self, grid: Grid) -> None:
        """Runs the remaining rounds, asks the sites for their certificates, and writes the records.

        Raises:
            CloisterError: The study cannot go on, or no site voted.
        """
        folder = self.run.path / "votes"
        try:
            private_folder(folder)
        except OSError as error:
            raise bad_file(error, "written") from error
        rounds = VoteRounds(grid, self.server, self.plans)

        def ask(number: int, candidates: Sequence[CandidateText]) -> Counted:
            came = rounds.ask(number, encode_candidates(candidates), len(candidates))
            self._reports[number] = came.report
            return Counted(came.votes, came.noise, came.received, len(came.sites))

        voted = run_rounds(
            self.study, ask, self.public, self.generator, folder, on_round=self._closed
        )
        last = self.study.votes.rounds
        certificates = kept_certificates(grid, self.server, self.run, last, last, self.observer)
        # A site whose votes never came has no part in the records, and no row on the card.
        voted_at = {one.site for one in voted.received} | certificates.keys()
        stated = {site: site_facts(fields) for site, fields in certificates.items()}
        promises = {
            site: stated[site].promise if site in stated else None for site in sorted(voted_at)
        }
        alone = {site: one.promise_alone for site, one in sorted(stated.items())}
        done = self._write(voted, promises, alone)
        self.observer.note(f"{done.facts.records:,} records: {done.file}")
        note(self.run.path, "finished", round=last, scores={"test": {}})

    def _closed(self, number: int, counted: Counted) -> None:
        """Tells of a round whose counts are kept; after a crash, of none twice."""
        if any(row["round"] == number for row in self.run.metrics()):
            return
        unknown = RoundReport(
            round=number,
            metrics={},
            epsilon={},
            received={one.site: (one.sha256, one.head) for one in counted.received},
            bytes_up=0,
            bytes_down=0,
            seconds=0.0,
            seconds_scoring=0.0,
            missing=(),
            retired=(),
            refused={},
            update_norm=0.0,
            aggregation_error=None,
        )
        self.observer.round_closed(self._reports.get(number, unknown))

    def _write(
        self,
        voted: Voted,
        promises: Mapping[str, Stated | None],
        alone: Mapping[str, Stated | None],
    ) -> Synthesized:
        place, vectors = self.run.path / RECORDS, self.study.recipe.model.sha256 or ""
        try:
            place.mkdir(exist_ok=True)
            (place / FILE).unlink(missing_ok=True)  # of a run that was cut off before its end
            write_whole(place / "cloister.json", about_records(self.study, vectors))
        except OSError as error:
            raise bad_file(error, "written") from error
        return write_records(
            place / FILE,
            self.study,
            voted,
            plans={site: self.plans[site] for site in sorted(self.plans)},
            promises=promises,
            alone=alone,
            vectors=vectors,
            generator=self.generator,
            publication=kept_publication(self.run.path),
        )
