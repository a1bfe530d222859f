"""Prepares a simulated study in one process: dealt data, the sites' plans, and the workspace.

Everything here is a function of the recipe alone, so that the coordinator and every worker make the
same study without sending anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from cloister.adapter.factor_pairs import cut_shapes
from cloister.client.admission import Admitted, admit
from cloister.client.app import Identity
from cloister.client.banding import PURPOSE, Banding
from cloister.client.secure import EpochKeys
from cloister.client.site import Site
from cloister.data.census import Census, census
from cloister.data.load import is_same_file, load
from cloister.data.public_set import public_records, refuse_contaminated, stated_public_set
from cloister.data.records import Record
from cloister.data.source import OLD_TEST
from cloister.data.step_log import couples_units
from cloister.errors import DataError
from cloister.ledger.stated import COUPLED
from cloister.ledger.unit_key import UnitKey, unit_key
from cloister.names import is_name
from cloister.privacy.plan import Plan
from cloister.privacy.units import Unit
from cloister.recipe import Recipe
from cloister.recipe.schema import StudyConfig
from cloister.server.public_center import with_public_center
from cloister.simulation.folds import held_out
from cloister.simulation.held_apart import held_apart
from cloister.simulation.kept import by_content
from cloister.simulation.open_ledgers import OpenLedgers, SiteFiles
from cloister.simulation.partition import partition
from cloister.simulation.plans import plans_of
from cloister.simulation.policies import simulated_budget, simulated_policy
from cloister.simulation.recipe_checks import check_recipe
from cloister.tasks.items_hash import with_items_sha256
from cloister.tasks.public_labels import study_labels
from cloister.training.config import TrainingConfig
from cloister.training.kept_proofs import known_or_proven
from cloister.training.machine import on_machine
from cloister.training.memory import kept_moments
from cloister.training.proof import Proof
from cloister.training.unit_marks import Marks, unit_marks
from cloister.training.units import EncodedUnits, encode_units
from cloister.training.workspace import Workspace, open_workspace


@dataclass(frozen=True)
class SimulatedStudy:
    """The data and plans of all institutions of a simulation.

    Attributes:
        recipe: The recipe, with its labels filled in.
        sites: Records by site, in order of the sites' names; "private".
        test: Public test records.
        validation: Public validation records; empty if the recipe names none.
        plans: The plans by site.
        couples_units: Whether a step that made the training file looked at more than one unit.
        old_test: The public test records of an earlier study; empty if the recipe names none.
        encoded: Units by site, once `units_of` was called.
        scored: Held-out units by site, once `held_out_of` was called.
        marks: Units' marks by site and key, once `banding_of` was called.
        held_out: By site, the records that are not trained on (`data.held_out_share`); empty if
            none are.
        workspace: The workspace that another process sent with it; None: this process opens one.
    """

    recipe: Recipe
    sites: Mapping[str, list[Record]]
    test: list[Record]
    validation: list[Record]
    plans: Mapping[str, Plan]
    couples_units: bool = False
    old_test: list[Record] = field(default_factory=list)
    encoded: dict[str, EncodedUnits] = field(default_factory=dict, compare=False, repr=False)
    held_out: Mapping[str, list[Record]] = field(default_factory=dict)
    scored: dict[str, EncodedUnits] = field(default_factory=dict, compare=False, repr=False)
    marks: dict[tuple[str, UnitKey], Marks] = field(default_factory=dict, compare=False, repr=False)
    workspace: Workspace | None = field(default=None, compare=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the sites' names in order; Flower's partition id is the index in it."""
        return tuple(self.sites)

    def part(self, names: Collection[str]) -> SimulatedStudy:
        """Returns the study with the records of some sites alone, encoded, for the process that
        runs them; the public sets, which the coordinator scores, are left out."""
        none: list[Record] = []
        for name in names:
            units_of(self, name)
            held_out_of(self, name)
        return dataclasses.replace(
            self,
            sites={name: own if name in names else none for name, own in self.sites.items()},
            held_out={name: own for name, own in self.held_out.items() if name in names},
            test=none,
            validation=none,
            old_test=none,
            encoded={name: units for name, units in self.encoded.items() if name in names},
            scored={name: units for name, units in self.scored.items() if name in names},
            marks={},
        )

    def census(self) -> Census:
        """Counts the sites' privacy units; a person at two sites is a unit of each."""
        unit = next(iter(self.plans.values())).unit
        by_site = [census(records, unit) for records in self.sites.values()]
        return dataclasses.replace(
            census([record for records in self.sites.values() for record in records], unit),
            units=sum(site.units for site in by_site),
            largest=max(site.largest for site in by_site),
        )


@by_content(2)  # a study and its plain twin
def prepare(recipe: Recipe) -> SimulatedStudy:
    """Loads the data, deals them to sites, fills in the labels and computes the noise.

    Raises:
        CloisterError: The data, the partition or the privacy target is not possible.
    """
    check_recipe(recipe)
    data, kind = recipe.data, recipe.task.records
    for name in ("test", "validation", "old_test", "public"):
        _refuse_training_file(name, getattr(data, name), data.train)
    whole = load(data.train, "train", kind, data, sites=data.partition == "column")
    if data.fold is None:
        source = data.test_source
        train, test = whole, load(source, "test", kind, data) if source is not None else []
    else:
        train, test = held_out(whole, data.fold, recipe.privacy.unit, recipe.study.seed)
    validation = load(data.validation, "validation", kind, data) if data.validation else []
    old_test = load(data.old_test, "test", kind, data, asker=OLD_TEST) if data.old_test else []
    refuse_contaminated(public_records(data, kind), [*test, *validation, *old_test])
    public = {data.test_source or "data.validation": [*test, *validation, *old_test]}
    labels = study_labels(recipe.task.labels, recipe.task.kind, {data.train: whole}, public)
    sites = partition(train, data, recipe.study.seed)
    invalid = [name for name in sites if not is_name(name)]
    if invalid:
        raise DataError(
            f"data.site: {invalid[0]!r} is not valid as a site's name: files are named after it, "
            "so it must not contain / or \\ or begin with a dot; rename it in the records"
        )
    task = with_items_sha256(dataclasses.replace(recipe.task, labels=labels))
    stated = dataclasses.replace(recipe, task=task, data=stated_public_set(data, kind))
    resolved = with_public_center(stated)
    coupled = couples_units(Path(data.train).expanduser())
    plans = plans_of(recipe, tuple(sites))
    sites, apart = held_apart(sites, data.held_out_share, recipe.study.seed)
    return SimulatedStudy(
        resolved, sites, test, validation, plans, coupled, old_test, held_out=apart
    )


def _refuse_training_file(name: str, public: str | None, train: str) -> None:
    """Refuses the training file as a public set, under any path or link."""
    if public is not None and public != train and is_same_file(public, train):
        raise DataError(
            f"data.{name}: {public} is the training file ({train}); scores of private records, and "
            "what is trained on them without noise, would be releases that no ledger charges: give "
            "a public set"
        )


@by_content(1)
def _open(recipe: Recipe) -> Workspace:
    return open_workspace(
        recipe.model,
        recipe.lora,
        recipe.task,
        recipe.task.labels,
        recipe.study.seed,
        frozen_cache_gib=recipe.machine.frozen_cache_gib,
        device=recipe.machine.device,
        attention=recipe.machine.attention,
        processes=recipe.machine.processes,
        gradient_checkpointing=bool(recipe.machine.gradient_checkpointing),
        adversarial_radius=recipe.training.adversarial_radius,
    )


def workspace_of(study: SimulatedStudy) -> Workspace:
    """Returns the process's only workspace for a study; all sites, and a twin, share its base.

    Raises:
        CloisterError: The base cannot be found or does not fit.
    """
    if study.workspace is not None:
        return study.workspace
    recipe = study.recipe
    # The key has only the fields that a workspace depends on, so that other studies share it.
    return _open(
        Recipe(
            study=StudyConfig(seed=recipe.study.seed),
            model=recipe.model,
            lora=recipe.lora,
            task=recipe.task,
            training=TrainingConfig(adversarial_radius=recipe.training.adversarial_radius),
            machine=recipe.machine,
        )
    )


def units_of(study: SimulatedStudy, name: str) -> EncodedUnits:
    """Returns a site's encoded units; the study caches them."""
    if name not in study.encoded:
        workspace, plan = workspace_of(study), study.plans[name]
        study.encoded[name] = encode_units(
            study.sites[name], workspace.task, plan.unit, plan.max_records, workspace.limits
        )
    return study.encoded[name]


def held_out_of(study: SimulatedStudy, name: str) -> EncodedUnits | None:
    """Returns a site's encoded held-out units, if the study evaluates privately; it caches them."""
    plan = study.plans[name]
    if plan.evaluations is None:
        return None
    if name not in study.scored:
        workspace = workspace_of(study)
        study.scored[name] = encode_units(
            study.held_out[name], workspace.task, plan.unit, plan.max_records, workspace.limits
        )
    return study.scored[name]


def banding_of(study: SimulatedStudy, name: str, ledger: Path) -> Banding | None:
    """Returns a site's groups and noise, if the study's noise is correlated."""
    plan = study.plans[name]
    if not plan.bands:
        return None
    key = unit_key(ledger)
    if (name, key) not in study.marks:
        study.marks[name, key] = unit_marks(study.sites[name], plan.unit, key, PURPOSE)
    return Banding.beside(ledger, study.recipe.digest(), key, study.marks[name, key])


def check_records(study: SimulatedStudy) -> list[str]:
    """Encodes all records once before a site is asked, since a simulation's records are the user's.

    Returns:
        Warnings, one line each.

    Raises:
        DataError: A record could not be used.
    """
    recipe = study.recipe
    encoded = {name: units_of(study, name) for name in study.names}
    for name, site in encoded.items():
        if site.problems:
            place, problem = site.problems[0]
            record = study.sites[name][place - 1]
            raise DataError(f"{recipe.data.train}, record {_place(recipe, record)}: {problem}")
    silent = sum(site.nothing_to_learn for site in encoded.values())
    unused = sum(site.unused for site in encoded.values())
    records = sum(len(records) for records in study.sites.values())
    notes = [f"data.train: {COUPLED}"] if study.couples_units else []
    if silent:
        notes.append(
            f"{silent} of {records} records have no effect: their first token to learn is beyond "
            f"task.max_length = {recipe.task.max_length}; raise it, or leave them out"
        )
    if unused and recipe.privacy.unit is Unit.RECORD:
        notes.append(
            f"{unused} of {records} rows are never used: they are copies, and only "
            f"privacy.max_rows_per_record = {recipe.privacy.max_records} rows of one record count; "
            "raise it, which does not change ε"
        )
    return notes


def _place(recipe: Recipe, record: Record) -> int:
    """Returns a record's row in its file, from 1."""
    kind = recipe.task.records
    written = load(recipe.data.train, "train", kind, recipe.data)
    wanted = dataclasses.replace(record, site=None)
    return [dataclasses.replace(other, site=None) for other in written].index(wanted) + 1


def plan_of(study: SimulatedStudy, name: str) -> Plan:
    """Returns a site's plan, with the shapes of its messages."""
    shapes = cut_shapes(workspace_of(study).sent.shapes, rank_of(study, name))
    return dataclasses.replace(study.plans[name], message=tuple(sorted(shapes.items())))


def rank_of(study: SimulatedStudy, name: str) -> int | None:
    """Returns the rank of a site's adapters; None: all sites have the same."""
    ranks = study.recipe.lora.ranks
    return ranks[study.names.index(name)] if ranks else None


def limit_of(study: SimulatedStudy, name: str) -> float | None:
    """Returns ε of a site's lifetime budget; None: the recipe states none."""
    budgets = study.recipe.privacy.site_budgets
    return budgets[study.names.index(name)] if budgets else None


@lru_cache(maxsize=256)
def _epoch_keys(public_key: str) -> EpochKeys:
    """Returns a simulated site's epoch keys, cached for this process, by its ledger's key."""
    return EpochKeys()


def _known_or_proven(
    workspace: Workspace, plan: Plan, training: TrainingConfig, limit: float
) -> Proof:
    """Returns the proof that the run's coordinator made or found kept; see `client.admission`."""
    return known_or_proven(workspace, plan, training, max_adapter_value=limit).proof


@dataclass(frozen=True)
class SimulatedSites:
    """Finds a simulated site by its Flower context; can be sent to a worker.

    Attributes:
        recipe: The user's recipe, labels not yet filled in.
        ledgers: Folder of the sites' ledgers.
        prepared: The study that the run prepared; None in another process, which prepares it from
            the recipe.
        opened: Opens the ledgers and what stands beside them.
    """

    recipe: Recipe
    ledgers: Path
    prepared: SimulatedStudy | None = None
    opened: SiteFiles = field(default_factory=OpenLedgers)

    def __call__(self, context: Context) -> tuple[Site, Workspace]:
        """Returns the site of `partition-id`, and this process's workspace."""
        study = self.prepared or prepare(self.recipe)
        name = study.names[int(str(context.node_config["partition-id"]))]
        plan, workspace = plan_of(study, name), workspace_of(study)
        path, digest = self.ledgers / f"{name}.ledger", study.recipe.digest()
        ledger = self.opened(path)
        budget = simulated_budget(plan, limit_of(study, name))
        if study.recipe.study.start is not None:  # a copied ledger keeps the earlier study's budget
            budget = ledger.budget
        partners = self._partners(study, name) if plan.sharing is not None else ()
        apart = held_out_of(study, name)
        site = Site(
            name=name,
            study=digest,
            plan=plan,
            policy=simulated_policy(study.recipe, plan, budget, workspace, partners),
            training=on_machine(self.recipe.training, self.recipe.machine),
            units=units_of(study, name).units,
            unit=plan.unit,
            ledger=ledger,
            seed=self.recipe.study.seed,
            personal=self.opened.personal(path, digest)
            if workspace.kept or self.recipe.training.personal
            else None,
            optimizer=self.opened.optimizer(path, digest)
            if kept_moments(self.recipe.training)
            else None,
            rank=rank_of(study, name),
            keys=_epoch_keys(ledger.public_key) if plan.sharing is not None else None,
            banding=banding_of(study, name, path),
            couples_units=study.couples_units,
            held_out=None if apart is None else apart.units,
            start=study.recipe.study.start,
            from_seed=study.recipe.begins_from_seed,
        )
        return site, workspace

    def admitted(self, context: Context) -> Admitted:
        """Returns the site's admission; its gradients are proven once, by the run's coordinator."""
        return admit(*self(context), prove=_known_or_proven)

    def identity(self, context: Context) -> Identity:
        """Returns the identity with which a site that is not admitted answers."""
        site, _ = self(context)
        return Identity(site.name, site.ledger.sign)

    def _partners(self, study: SimulatedStudy, name: str) -> tuple[str, ...]:
        """Returns the public keys of the other sites' ledgers."""
        others = (self.ledgers / f"{other}.ledger" for other in study.names if other != name)
        return tuple(self.opened.public_key(ledger) for ledger in others)
