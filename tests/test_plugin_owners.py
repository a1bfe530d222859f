"""The package that installs a module is the one that Python names."""

from importlib.metadata import packages_distributions

import pytest

from cloister.plugins import _owners

# A folder, one file, a file with a folder of its kind beside it, several in one package, a
# namespace of several packages.
MODULES = ["numpy", "six", "typing_extensions", "_pytest", "pytest", "google", "yaml"]


@pytest.fixture(scope="module")
def listed() -> dict[str, list[str]]:
    return {name: list(owners) for name, owners in packages_distributions().items()}


@pytest.mark.parametrize("module", MODULES)
def test_it_is_found_as_python_lists_it(module: str, listed: dict[str, list[str]]) -> None:
    assert listed[module]
    assert list(_owners(module, ())) == list(dict.fromkeys(listed[module]))


@pytest.mark.parametrize("module", ["nump", "umpy", "n.mpy", "no_such_module"])
def test_a_module_that_nobody_installs_has_none(module: str, listed: dict[str, list[str]]) -> None:
    assert module not in listed
    assert _owners(module, ()) == ()
