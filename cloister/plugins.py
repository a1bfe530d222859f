"""Finds plug-ins: code of other packages, by an entry point or by an import path.

`origin` looks a name up among installed packages without importing anything; `load` imports it. A
user's own recipe decides what may be imported. At a site, `site.toml` decides: see
`cloister.tasks.plugins`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distribution, distributions, entry_points
from pathlib import Path
from typing import Any

from cloister.bounds import MOST_NAME, shortened
from cloister.errors import UsageError

# `package.module:Class`, and the name of an entry point. ASCII, so that two names never look equal.
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_ENTRY = re.compile(r"[a-z](?:[a-z0-9._-]*[a-z0-9])?")

# Classes of a script or notebook, by name; they exist in this process only.
_HERE: dict[str, type] = {}


@dataclass(frozen=True)
class Origin:
    """The code that a plug-in's name means.

    Attributes:
        path: `module:Class`.
        distribution: The installed package that contains it; empty: none.
        version: That package's version; empty: none.
    """

    path: str
    distribution: str = ""
    version: str = ""


def is_path(name: str) -> bool:
    """Returns whether a name has the form `package.module:Class`."""
    return len(name) <= MOST_NAME and _PATH.fullmatch(name) is not None


def is_of_this_process(name: str) -> bool:
    """Returns whether a name is that of a class of a script or notebook."""
    return name.startswith("__main__:")


def is_plugin_name(name: str) -> bool:
    """Returns whether a name has the form of an import path or entry point; nothing is looked
    up."""
    return is_path(name) or (len(name) <= MOST_NAME and _ENTRY.fullmatch(name) is not None)


def is_installed(name: str, group: str) -> bool:
    """Returns whether a name is an import path or an installed entry point; nothing is imported."""
    return is_path(name) or (is_plugin_name(name) and bool(entry_points(group=group, name=name)))


def origin(name: str, group: str, key: str) -> Origin:
    """Finds where a plug-in is installed. Nothing is imported.

    Args:
        name: Name of its entry point, or its import path.
        group: The entry points' group.
        key: The recipe's field, for messages.

    Raises:
        UsageError: The name has neither form, or no or several installed packages have it.
    """
    if is_path(name):
        return _of_path(name, group)
    found = list(entry_points(group=group, name=name)) if is_plugin_name(name) else []
    if not found:
        raise UsageError(
            f"{key}: {shortened(name)} given; no installed package has such a plug-in (entry point "
            f"group {group}): install it, or give module:Class"
        )
    if len({entry.value for entry in found}) > 1:
        owners = ", ".join(sorted(entry.dist.name for entry in found if entry.dist))
        raise UsageError(
            f"{key}: several packages have a plug-in {name}: {owners}; give module:Class"
        )
    return _of_entry(found[0])


def _of_entry(entry: EntryPoint) -> Origin:
    owner = entry.dist
    return Origin(entry.value, owner.name, owner.version) if owner else Origin(entry.value)


def _of_path(path: str, group: str) -> Origin:
    for entry in entry_points(group=group):  # an editable install lists no files
        if entry.value == path and entry.dist:
            return _of_entry(entry)
    module = path.partition(":")[0]
    places = tuple((place, _changed(place)) for place in sys.path)
    owners = [distribution(name) for name in _owners(module.split(".")[0], places)]
    if len(owners) > 1:  # a namespace of several packages
        owners = [owner for owner in owners if _has(owner, module)]
    return Origin(path, owners[0].name, owners[0].version) if owners else Origin(path)


@lru_cache(maxsize=16)
def _owners(module: str, _places: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """Returns the packages that install a module of the top level; cached until a folder changes.

    As `importlib.metadata.packages_distributions`, which lists every file of every package and
    takes half a second: here a package's list of files is searched as text.
    """
    line = re.compile(rf'^"?{re.escape(module)}(?:/[^,\n]*)?\.py"?,', re.M)
    found = []
    for owner in distributions():
        declared = (owner.read_text("top_level.txt") or "").split()
        if module in declared or (not declared and line.search(owner.read_text("RECORD") or "")):
            found.append(owner.metadata["Name"])
    return tuple(dict.fromkeys(found))


def _changed(place: str) -> int:
    try:
        return Path(place or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _has(owner: Distribution, module: str) -> bool:
    stem = module.replace(".", "/")
    return any(str(file) in (f"{stem}.py", f"{stem}/__init__.py") for file in owner.files or ())


def load(path: str, key: str) -> type:
    """Imports a plug-in's class.

    Args:
        path: `module:Class`.
        key: The recipe's field, for messages.

    Raises:
        UsageError: It cannot be imported, is not a class, or is a class of another process's
            script.
    """
    if path in _HERE:
        return _HERE[path]
    module, _, name = path.partition(":")
    if module == "__main__":
        raise UsageError(
            f"{key}: {path} is a class of a script or notebook, which only the simulation that it "
            "starts can use; put it into a module, and give module:Class"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{key}: {path} cannot be imported: {said(error)}; install its package, or set "
            "PYTHONPATH to the folder of its module"
        ) from error
    if not isinstance(found, type):
        raise UsageError(f"{key}: {path} is {shortened(found)}; a class is needed")
    return found


def path_of(kind: type, key: str) -> str:
    """Returns a class's import path, or a name for this process only if it has none.

    Raises:
        UsageError: A recipe cannot have its name.
    """
    path = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ != "__main__" and "." not in kind.__qualname__:
        found = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
        if found is kind and is_path(path):
            return path
    path = f"__main__:{kind.__name__}"
    if not is_path(path):
        raise UsageError(f"{key}: {shortened(kind.__name__)} given; an ASCII name is needed")
    _HERE[path] = kind
    return path


def source_version(kind: type) -> str:
    """Returns `sha256:` and the hash of a class's code, for classes of no installed package.

    For a module it covers the whole file, for a script or notebook the class only; it is empty if
    there is no file.
    """
    module: Any = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    try:
        if file is None or kind.__module__ == "__main__":
            content = inspect.getsource(kind).encode()
        else:
            content = Path(file).read_bytes()
    except (OSError, TypeError):
        return ""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def said(error: BaseException) -> str:
    """Returns an error's type and the start of its text, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {shortened(text)[1:-1]}" if text else type(error).__name__
