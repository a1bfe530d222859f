"""Sets the clock of SuperNode and doctor an hour ahead, in processes with this PYTHONPATH.

Flower stamps a node's calls by `flwr.supercore.date.now`, and
`cloister.deployment.site.connectivity` compares clocks.
"""

import datetime
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

HOUR = datetime.timedelta(hours=1)


class Fast(datetime.datetime):
    """`datetime` an hour ahead."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return datetime.datetime.now(tz) + HOUR


REPLACED = {
    "flwr.supercore.date": ("now", lambda: Fast.now(datetime.UTC)),
    "cloister.deployment.site.connectivity": ("datetime", Fast),
}


class Skewing(importlib.abc.MetaPathFinder):
    """Finds the modules as usual and replaces what they tell the time by."""

    def find_spec(
        self, name: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in REPLACED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        assert spec is not None
        loader = spec.loader
        assert loader is not None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            attribute, fake = REPLACED[name]
            assert hasattr(module, attribute)
            setattr(module, attribute, fake)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Skewing())
