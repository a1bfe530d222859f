"""Finds the built-in strategies: every module of this folder that has a list `METHODS`.

A new strategy is one new file here. Nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil

from cloister import strategies
from cloister.strategies.method import Method

# Modules that read the registry; no strategy is in them.
_READERS = frozenset({"build", "config", "guard", "plugins", "registry"})


def find_methods() -> dict[str, Method]:
    """Methods by name, in order of their modules' names.

    Raises:
        ValueError: Two modules declare the same name.
    """
    found: dict[str, Method] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(strategies.__path__)):
        if module in _READERS:
            continue
        for method in getattr(
            importlib.import_module(f"{strategies.__name__}.{module}"), "METHODS", ()
        ):
            if method.name in found:
                raise ValueError(f"two strategies are called {method.name}")
            found[method.name] = method
    return found


BUILT_IN = find_methods()
