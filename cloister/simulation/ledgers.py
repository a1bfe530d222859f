"""Begins the ledgers of simulated sites, as an institution begins its own.

A site of the finished run with which a study begins goes on with a copy of that run's ledger, since
a data set has one ledger for its lifetime.
"""

from __future__ import annotations

from cloister.errors import BudgetError, LedgerError, UsageError
from cloister.ledger.charge import Charge
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.owner_only import private_folder
from cloister.server.former_run import FormerRun, copy_ledgers
from cloister.server.run_copy import refuse_copy
from cloister.server.run_directory import RunDirectory
from cloister.server.start import keep_start
from cloister.simulation.policies import simulated_budget
from cloister.simulation.study import SimulatedStudy, limit_of
from cloister.staging import staging


def go_on(run: RunDirectory, former: FormerRun) -> None:
    """Writes what a new run begins with: the finished run's adapter, and its sites' ledgers.

    Raises:
        LedgerError: A ledger is missing or damaged.
        BadFileError: A file cannot be written.
        RefusedError: The finished run is a copy, whose ledgers may lack charges.
    """
    refuse_copy(former.run.path)
    keep_start(run, former)
    copy_ledgers(former.run, run)


def carry_on(run: RunDirectory, before: RunDirectory) -> None:
    """Begins a run's ledgers as copies of another run's, so that it is charged after that one.

    Args:
        run: The run's folder, which may have ledgers already: then nothing is done.
        before: The folder of the run that was charged last.

    Raises:
        LedgerError: A ledger is missing or damaged.
        BadFileError: A file cannot be copied.

    Guarantees:
        After a crash the run has all of the ledgers, or none.
    """
    target = run.path / "ledgers"
    if target.exists():
        return
    with staging(target, "copied") as stage:
        copy_ledgers(before, RunDirectory(stage))
        (stage / "ledgers").rename(target)


def begin_ledgers(study: SimulatedStudy, run: RunDirectory) -> None:
    """Begins the ledger of every site that has none yet, and checks those that go on.

    Raises:
        LedgerError: A ledger cannot be written.
        BudgetError: The lifetime budget of a site covers no round after the earlier study.
        RefusedError: The earlier study protected another unit, or had a smaller δ.
        UsageError: The recipe states another lifetime budget than the ledger has.
    """
    for name in study.names:
        path = run.ledger(name)
        try:
            private_folder(path.parent)
        except OSError as error:
            raise LedgerError(f"{path}: cannot be written ({error}); name another --out") from error
        if not LedgerFile(path).is_begun:
            plan = study.plans[name]
            Ledger.create(path, simulated_budget(plan, limit_of(study, name)), plan.unit)
        elif study.recipe.study.start is not None:
            _check_goes_on(study, name, Ledger(path))


def _check_goes_on(study: SimulatedStudy, name: str, ledger: Ledger) -> None:
    """Checks that a copied ledger covers a round of this study, by the rule that charges it."""
    plan, budget, asked = study.plans[name], ledger.budget.epsilon, limit_of(study, name)
    if asked is not None and asked != budget:
        raise UsageError(
            f"privacy.site_budgets: {asked:g} given for {name}, whose ledger was begun with "
            f"{budget:g} in the earlier study; a lifetime budget stays as it is: leave the field "
            "out, or give the earlier one"
        )
    try:
        ledger.check(
            Charge(
                study=study.recipe.digest(),
                round=1,
                plan=plan,
                request="",
                is_private=plan.is_private,
            )
        )
    except BudgetError as error:
        raise BudgetError(
            f"{name}: its lifetime budget of ε = {budget:g} covers no round of this study after "
            "the earlier one. In a simulation the budget is the cost of the first study unless "
            "privacy.site_budgets states more: run that one again with a budget for both, for "
            f"example {2 * budget:.3g} for each site, then begin with its run"
        ) from error
