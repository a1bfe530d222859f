"""A simulated study in one process: its data dealt to sites, their plans, and the workspace.

Everything here follows from the recipe alone, so that the coordinator and every worker come to the
same study without anything being sent.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from cloister.adapter.pairs import cut_shapes
from cloister.client.admission import Admitted, admit
from cloister.client.app import Identity
from cloister.client.personal import PersonalAdapter
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.data.load import load
from cloister.data.records import Record, TextRecord
from cloister.errors import DataError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.names import is_name
from cloister.privacy.keys import load_key, public_hex
from cloister.privacy.ledger import Ledger, key_file
from cloister.privacy.plan import Plan, make_plan
from cloister.recipe import Recipe
from cloister.simulation.partition import partition
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.tasks.build import labels_of, record_kind
from cloister.tasks.config import TaskConfig
from cloister.training.units import EncodedUnits, encode_units
from cloister.training.workspace import Workspace, open_workspace


@dataclass(frozen=True)
class SimulatedStudy:
    """What a simulation holds of all institutions at once.

    Attributes:
        recipe: With its labels filled in.
        sites: Records by site, in order of the sites' names; "private".
        test: Public.
        validation: Public; empty where the recipe names none.
        plans: By site.
    """

    recipe: Recipe
    sites: Mapping[str, list[Record]]
    test: list[Record]
    validation: list[Record]
    plans: Mapping[str, Plan]

    @property
    def names(self) -> tuple[str, ...]:
        """The sites' names in order; Flower's partition ids count along it."""
        return tuple(self.sites)

    def majority(self) -> float | None:
        """Share of the test set's most frequent label: what guessing reaches."""
        labels = Counter(r.label for r in self.test if isinstance(r, TextRecord))
        return max(labels.values()) / len(self.test) if labels else None


@lru_cache(maxsize=2)  # a study and its plain twin
def prepare(recipe: Recipe) -> SimulatedStudy:
    """Loads the data, deals it to sites, fills in the labels, solves for the noise.

    Raises:
        CloisterError: The data, the partition or the privacy target cannot be had.
    """
    data, kind = recipe.data, record_kind(recipe.task.kind)
    train = load(data.train, "train", kind, data)
    test = load(data.test or data.train, "test", kind, data)
    validation = load(data.validation, "validation", kind, data) if data.validation else []
    # Public: what leaves has a row for each label, so a label that one record brings would show it.
    labels = recipe.task.labels or labels_of([*test, *validation], kind)
    for where, records in ((data.train, train), (data.test or data.train, [*test, *validation])):
        unknown = sorted(set(labels_of(records, kind)) - set(labels))
        if unknown:
            raise DataError(
                f"{where} has labels that are not the study's: {', '.join(unknown[:5])}; the "
                "study's are those of the public test set, unless task.labels names all of them"
            )
    sites = partition(train, data, recipe.study.seed)
    odd = [name for name in sites if not is_name(name)]
    if odd:
        raise DataError(
            f"data.site: {odd[0]!r} is no name for a site: ledgers and certificates are called by "
            "it, so it holds neither / nor \\ and begins with no dot; rename it in the records"
        )
    resolved = dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, labels=labels))
    return SimulatedStudy(resolved, sites, test, validation, plans_of(recipe, tuple(sites)))


def plans_of(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Plan]:
    """Each site's plan, from declared constants alone.

    Raises:
        RefusedError: No noise meets the target.
    """
    declared = recipe.data.public_records
    by_site = declared if isinstance(declared, tuple) else (declared,) * len(names)
    solved = {
        records: make_plan(
            recipe.privacy,
            public_records=records,
            expected_batch_size=recipe.training.expected_batch_size,
            local_steps=recipe.training.local_steps,
            num_rounds=recipe.federation.num_rounds,
            sites=recipe.data.sites,
        )
        for records in set(by_site)
    }
    return {name: solved[records] for name, records in zip(names, by_site, strict=True)}


@lru_cache(maxsize=1)
def _open(
    model: ModelConfig,
    lora: LoraConfig,
    task: TaskConfig,
    seed: int,
    frozen_cache_gib: float,
) -> Workspace:
    return open_workspace(model, lora, task, task.labels, seed, frozen_cache_gib=frozen_cache_gib)


def workspace_of(study: SimulatedStudy) -> Workspace:
    """The process's one workspace for a study; its base serves all sites, and a twin's too.

    Raises:
        CloisterError: The base cannot be had or does not fit.
    """
    recipe = study.recipe
    return _open(
        recipe.model,
        recipe.lora,
        recipe.task,
        recipe.study.seed,
        recipe.training.frozen_cache_gib,
    )


@lru_cache(maxsize=256)  # more sites than a study has (3…50)
def _encoded(recipe: Recipe, name: str) -> EncodedUnits:
    study = prepare(recipe)
    workspace, plan = workspace_of(study), study.plans[name]
    return encode_units(
        study.sites[name], workspace.task, plan.unit, plan.max_records, workspace.vocabulary
    )


def check_records(recipe: Recipe) -> list[str]:
    """Encodes all records once before any site is asked, as in a simulation all are the user's own.

    Args:
        recipe: As given, labels not yet filled in.

    Returns:
        What is seldom meant, one line each.

    Raises:
        DataError: A record would be left out of its unit.
    """
    encoded = {name: _encoded(recipe, name) for name in prepare(recipe).names}
    for name, site in encoded.items():
        if site.problems:
            place, problem = site.problems[0]
            record = prepare(recipe).sites[name][place - 1]
            raise DataError(f"{recipe.data.train}, record {_place(recipe, record)}: {problem}")
    silent = sum(site.nothing_to_learn for site in encoded.values())
    records = sum(len(records) for records in prepare(recipe).sites.values())
    if not silent:
        return []
    return [
        f"{silent} of {records} records teach nothing: their first token to learn lies beyond "
        f"task.max_length = {recipe.task.max_length}; raise it, or leave them out"
    ]


def _place(recipe: Recipe, record: Record) -> int:
    """Where in its file a record stands, from 1, whichever site it was dealt to."""
    kind = record_kind(recipe.task.kind)
    written = load(recipe.data.train, "train", kind, recipe.data)
    wanted = dataclasses.replace(record, site=None)
    return [dataclasses.replace(other, site=None) for other in written].index(wanted) + 1


def plan_of(study: SimulatedStudy, name: str) -> Plan:
    """A site's plan with what its messages hold."""
    shapes = cut_shapes(workspace_of(study).sent.shapes, rank_of(study, name))
    return dataclasses.replace(study.plans[name], message=tuple(sorted(shapes.items())))


def rank_of(study: SimulatedStudy, name: str) -> int | None:
    """The rank of a site's adapters; None where all are of one."""
    ranks = study.recipe.lora.ranks
    return ranks[study.names.index(name)] if ranks else None


def limit_of(study: SimulatedStudy, name: str) -> float | None:
    """ε of a site's lifetime budget where the recipe states it."""
    budgets = study.recipe.privacy.site_budgets
    return budgets[study.names.index(name)] if budgets else None


@lru_cache(maxsize=256)
def _epoch_keys(ledger: Path) -> EpochKeys:
    """What a simulated site holds of its epoch, over the rounds of this process."""
    return EpochKeys()


@dataclass(frozen=True)
class SimulatedSites:
    """Finds a simulated site from its Flower context; can be sent to a worker.

    Attributes:
        recipe: As given, labels not yet filled in.
        ledgers: Folder of the sites' ledgers.
    """

    recipe: Recipe
    ledgers: Path

    def __call__(self, context: Context) -> tuple[Site, Workspace]:
        """The site of `partition-id`, and this process's workspace."""
        study = prepare(self.recipe)
        name = study.names[int(str(context.node_config["partition-id"]))]
        plan, workspace = plan_of(study, name), workspace_of(study)
        budget = simulated_budget(plan, limit_of(study, name))
        ledger, digest = self.ledgers / f"{name}.ledger", study.recipe.digest()
        partners = self._partners(study, name) if plan.sharing is not None else ()
        site = Site(
            name=name,
            study=digest,
            plan=plan,
            policy=simulated_policy(study.recipe, plan, budget, workspace, partners),
            training=self.recipe.training,
            units=_encoded(self.recipe, name).units,
            unit=plan.unit,
            ledger=Ledger(ledger),
            seed=self.recipe.study.seed,
            personal=PersonalAdapter.beside(ledger, digest)
            if workspace.kept or self.recipe.training.personal
            else None,
            rank=rank_of(study, name),
            keys=_epoch_keys(ledger) if plan.sharing is not None else None,
        )
        return site, workspace

    def admitted(self, context: Context) -> Admitted:
        """The same site in its study; its gradients are proven once, by the run's coordinator."""
        return admit(*self(context))

    def identity(self, context: Context) -> Identity:
        """Who speaks for a site that is not admitted."""
        site, _ = self(context)
        return Identity(site.name, site.ledger.sign)

    def _partners(self, study: SimulatedStudy, name: str) -> tuple[str, ...]:
        """Public keys of the other sites' ledgers."""
        others = (self.ledgers / f"{other}.ledger" for other in study.names if other != name)
        return tuple(public_hex(load_key(key_file(ledger))) for ledger in others)
