"""The sites of a study of votes, in this process: their own code, records and ledgers.

Each answers through `client.round.run_round`, as a deployed site answers: it charges its ledger
before a record is looked at, and sends the same bytes when it is asked again. Where the noise is
shared, all of them are asked for one secure sum, by the code that asks deployed sites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cloister.adapter.wire import decode
from cloister.client.admission import Admitted, admit
from cloister.client.app import make_client_app
from cloister.client.round import run_round
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.data.census import census
from cloister.data.load import load
from cloister.data.records import Record
from cloister.data.step_log import couples_units
from cloister.errors import DataError, RoundSpentError
from cloister.evidence.bundle import Received
from cloister.ledger.ledger import Ledger
from cloister.ledger.stated import COUPLED
from cloister.ledger.storage import LedgerFile
from cloister.models.config import LoraConfig
from cloister.names import is_name
from cloister.owner_only import private_folder
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from cloister.privacy.votes import HISTOGRAM
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.protocol.exchange import RoundRequest, Step
from cloister.protocol.signed_questions import Unsigned
from cloister.recipe.vote_study import VoteStudy, noise_of_a_count
from cloister.server.dispatch import Timeouts
from cloister.server.ports import Observer, Participants
from cloister.server.private_votes import VoteRounds, voting_study
from cloister.simulation.local_grid import LocalGrid
from cloister.simulation.partition import partition
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.tasks.public_labels import study_labels
from cloister.training.machine import on_machine
from cloister.training.units import EncodedUnits, encode_units
from cloister.training.workspace import Workspace, open_workspace
from cloister.voting.kept_rounds import Counted

# Seconds that a round may wait; here every site answers at once.
LONGEST = 3600.0


@dataclass(frozen=True)
class Voters:
    """The admitted sites.

    Attributes:
        study: The study.
        workspace: The base that computes the vectors; all sites share it in turn.
        admitted: By site.
        ledgers: The file of each site's ledger.
    """

    study: VoteStudy
    workspace: Workspace
    admitted: Mapping[str, Admitted]
    ledgers: Mapping[str, Path]

    @property
    def plans(self) -> dict[str, Plan]:
        """Each site's plan."""
        return {name: one.plan for name, one in self.admitted.items()}

    def ask(self, number: int, candidates: Sequence[CandidateText]) -> Counted:
        """Asks every site for its votes in a round, and adds them.

        Sites that were asked before, for example before a crash, send the same bytes again. Where
        the noise is shared, their round is then spent, as keys are kept in memory only.

        Raises:
            CloisterError: A site refused; or its votes failed, which costs the round at this site.
        """
        if any(plan.sharing is not None for plan in self.plans.values()):
            return self._summed(number, candidates)
        request = RoundRequest(
            self.study.digest, number, b"", Step.VOTE, encode_candidates(candidates)
        )
        total, received = np.zeros(len(candidates)), list[Received]()
        for name, admitted in self.admitted.items():
            try:
                reply = run_round(admitted, request, lambda: None)
            except RoundSpentError as error:
                if error.__cause__ is not None:  # an error of this process, and not of an earlier
                    raise error.__cause__ from None
                continue
            shapes = dict(admitted.plan.message)
            total += decode(reply.delta, shapes, dtype="float32")[HISTOGRAM].astype(np.float64)
            sha256 = hashlib.sha256(reply.delta).hexdigest()
            received.append(Received(number, name, sha256, reply.head, ReleaseKind.VOTE))
        noise = noise_of_a_count({one.site: self.plans[one.site] for one in received})
        return Counted(total, noise, tuple(received), len(received))

    def _summed(self, number: int, candidates: Sequence[CandidateText]) -> Counted:
        self._errors.clear()
        came = self._rounds.ask(number, encode_candidates(candidates), len(candidates))
        causes = [error.__cause__ for error in self._errors if error.__cause__ is not None]
        if causes:  # errors of this process, and not of an earlier one
            raise causes[0]
        return Counted(came.votes, came.noise, came.received, len(came.sites))

    @cached_property
    def _errors(self) -> list[Exception]:
        return []

    @cached_property
    def _rounds(self) -> VoteRounds:
        sites = list(self.admitted.values())
        app = make_client_app(
            lambda at: sites[int(str(at.node_config["partition-id"]))],
            Unsigned(),
            on_error=self._errors.append,
        )
        people = Participants(
            names=tuple(self.admitted),
            patience=Timeouts(LONGEST),
            voice=Unsigned(),
            keys={name: one.site.ledger.public_key for name, one in self.admitted.items()},
        )
        study = voting_study(self.study.recipe, sites[0].plan, people, Observer())
        return VoteRounds(LocalGrid(app, len(sites)), study, self.plans)


def open_voters(
    study: VoteStudy,
    folder: Path,
    on_note: Callable[[str], None] = lambda text: None,
) -> Voters:
    """Loads records and base, begins the ledgers that are missing, and admits every site.

    Args:
        study: The study.
        folder: Where the ledgers are.
        on_note: Gets the number of units, and warnings.

    Raises:
        CloisterError: The records, the base or a ledger cannot be used; nothing was charged.
    """
    recipe = study.recipe
    sites = _sites(study)
    plans = study.plans(tuple(sites))
    everyone = [record for records in sites.values() for record in records]
    on_note(str(census(everyone, recipe.privacy.unit)))
    couples = couples_units(Path(recipe.data.train).expanduser())
    if couples:
        on_note(f"data.train: {COUPLED}")
    workspace = open_workspace(
        recipe.model,
        LoraConfig(train="none", head="linear"),
        recipe.task,
        recipe.task.labels,
        recipe.study.seed,
        frozen_cache_gib=0.0,  # every text is read once a round, and records are read alone
        device=recipe.machine.device,
        attention=recipe.machine.attention,
    )
    budgets = dict(zip(plans, recipe.privacy.site_budgets, strict=False))
    encoded = {name: _encoded(study, workspace, plans[name], name, sites[name]) for name in sites}
    private_folder(folder)
    ledgers = {name: folder / f"{name}.ledger" for name in sites}
    opened = {
        name: Ledger(ledgers[name])
        if LedgerFile(ledgers[name]).is_begun
        else Ledger.create(ledgers[name], simulated_budget(plan, budgets.get(name)), plan.unit)
        for name, plan in plans.items()
    }
    partners = tuple(ledger.public_key for ledger in opened.values())
    admitted = {}
    for name, plan in plans.items():
        ledger = opened[name]
        site = Site(
            name=name,
            study=study.digest,
            plan=plan,
            policy=simulated_policy(
                recipe, plan, ledger.budget, workspace, partners if plan.sharing else ()
            ),
            training=on_machine(recipe.training, recipe.machine),
            units=encoded[name].units,
            unit=plan.unit,
            ledger=ledger,
            seed=recipe.study.seed,
            keys=EpochKeys() if plan.sharing else None,
            couples_units=couples,
        )
        admitted[name] = admit(site, workspace)
    return Voters(study, workspace, admitted, ledgers)


def _sites(study: VoteStudy) -> dict[str, list[Record]]:
    """Reads the private records and deals them to sites.

    Raises:
        DataError: They cannot be read, or have a label that the study does not name.
    """
    data, task = study.recipe.data, study.recipe.task
    records = load(data.train, "train", task.records, data, sites=data.partition == "column")
    study_labels(task.labels, task.kind, {data.train: records}, {})
    sites = partition(records, data, study.recipe.study.seed)
    invalid = [name for name in sites if not is_name(name)]
    if invalid:
        raise DataError(
            f"data.site: {invalid[0]!r} is not valid as a site's name: files are named after it, "
            "so it must not contain / or \\ or begin with a dot; rename it in the records"
        )
    return sites


def _encoded(
    study: VoteStudy, workspace: Workspace, plan: Plan, name: str, records: Sequence[Record]
) -> EncodedUnits:
    """Encodes a site's records; a simulation's are the user's own, so what is wrong is said.

    Raises:
        DataError: A record cannot vote.
    """
    found = encode_units(records, workspace.task, plan.unit, plan.max_records, workspace.limits)
    if found.problems:
        place, problem = found.problems[0]
        raise DataError(f"{study.recipe.data.train}, record {place} of {name}: {problem}")
    return found
