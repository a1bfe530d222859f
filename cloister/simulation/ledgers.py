"""Begins the ledgers of simulated sites, as an institution begins its own."""

from __future__ import annotations

from cloister.errors import LedgerError
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.owner_only import private_folder
from cloister.server.run_directory import RunDirectory
from cloister.simulation.policies import simulated_budget
from cloister.simulation.study import SimulatedStudy, limit_of


def begin_ledgers(study: SimulatedStudy, run: RunDirectory) -> None:
    """Begins the ledger of every site that has none yet.

    Raises:
        LedgerError: A ledger cannot be written.
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
