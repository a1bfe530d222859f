"""Shortens the waiting times at a site, in processes with this PYTHONPATH.

Flower's SuperNode sleeps 3 s between two checks for messages
(`flwr.supernode.start_client_internal`), and our agent waits a minute for a message on a slow line.
Together this is most of the time of a small study on one machine.
"""

import importlib.abc
import importlib.machinery
import sys
import time
from types import ModuleType

FLOWERS, OURS = 3, 1.0  # seconds between two looks; nothing else here sleeps so long
TASKS, PATIENCE = "cloister.deployment.flower.flower_tasks", 10.0
sleep = time.sleep


def hurried(seconds: float) -> None:
    """Sleeps, and less than Flower says."""
    sleep(OURS if seconds == FLOWERS else seconds)


class Hurrying(importlib.abc.MetaPathFinder):
    """Finds the module as usual and shortens its patience."""

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != TASKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        assert spec is not None
        loader = spec.loader
        assert loader is not None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            assert module.PatientClient.patience > PATIENCE
            module.PatientClient.patience = PATIENCE

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


time.sleep = hurried
sys.meta_path.insert(0, Hurrying())
