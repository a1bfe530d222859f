"""Strategies of other packages: found, stated in the recipe, guarded, and refused by name."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.errors import PluginError, RecipeError, UsageError
from cloister.recipe import (
    Recipe,
    parse_document,
    parse_recipe,
    read_recipe,
    read_run_recipe,
    sent_document,
    validated,
)
from cloister.strategies import plugins, registry
from cloister.strategies.accumulator import Buffered, Streaming, accumulator_of
from cloister.strategies.build import make_strategy
from cloister.strategies.config import CarriedStrategy, PluginStrategy
from cloister.strategies.method import Method
from cloister.strategies.plugins import named
from cloister.strategies.strategy import MeanStrategy, ServerState, Strategy, Traits, UpdateFilter
from tests.support.plugins import Site, packages

__all__ = ["packages"]  # a fixture

SOURCE = """
from dataclasses import dataclass, replace
from cloister.strategies.strategy import Strategy, Traits

@dataclass(frozen=True)
class Half(Strategy):
    '''Half of the first site's step.'''
    step_size: float = 0.5
    order: tuple[str, ...] = ()

    def aggregate(self, state, updates):
        first = updates[sorted(updates)[0]]
        return replace(state, adapter=state.adapter + first.scale(self.step_size))

class Mean(Half):
    traits = Traits(is_linear=True)
"""
ENTRIES = {"cloister.strategies": {"half": "halving:Half"}}
START = Adapter({"w": np.array([1.0, 2.0]), "v": np.array([[3.0]])})
UPDATES = {"a": START.scale(2.0), "b": START.scale(4.0)}


def problems(*assignments: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("", list(assignments))
    return str(caught.value)


# --- names and the recipe ---------------------------------------------------------------------


def test_an_entry_point_is_a_strategy_of_a_recipe(packages: Site) -> None:
    packages.package("halving", SOURCE, "1.2", ENTRIES)
    recipe = parse_recipe("", ["strategy.name=half", "strategy.step_size=1"])
    table = json.loads(sent_document(recipe))["strategy"]
    assert table == {
        "name": "half",
        "distribution": "halving-dist",
        "version": "1.2",
        "step_size": 1.0,
        "order": [],
    }
    moved = make_strategy(recipe.strategy, ("a", "b")).aggregate(ServerState(START), UPDATES)
    assert moved.adapter["w"].tolist() == [3.0, 6.0]
    assert moved.round == 1  # though the plug-in does not count


def test_an_import_path_is_one_too_and_its_file_is_its_version(packages: Site) -> None:
    packages.module("loose", SOURCE)
    recipe = parse_recipe("", ["strategy.name=loose:Half"])
    assert isinstance(recipe.strategy, PluginStrategy)
    assert recipe.strategy.distribution == ""
    assert recipe.strategy.version == f"sha256:{hashlib.sha256(SOURCE.encode()).hexdigest()}"


def test_package_version_and_options_change_the_digest(packages: Site) -> None:
    digests = set()
    for version in ("1.0", "1.1"):
        packages.package("halving", SOURCE, version, ENTRIES)
        for assignments in (["strategy.name=half"], ["strategy.name=half", "strategy.step_size=2"]):
            digests.add(parse_recipe("", assignments).digest())
    digests.add(parse_recipe("", ["strategy.name=halving:Half"]).digest())
    assert len(digests) == 5


def test_a_run_s_recipe_reads_back_and_imports_nothing(packages: Site, tmp_path: Path) -> None:
    packages.package("halving", SOURCE, "1.0", ENTRIES)
    recipe = parse_recipe("", ["strategy.name=half", 'strategy.order=["b", "a"]'])
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    assert read_recipe(file).digest() == recipe.digest()
    packages.package("halving", "raise SystemExit('imported')", "1.0", ENTRIES)
    begun = read_run_recipe(file)
    assert begun == recipe.resolved()
    assert begun.digest() == recipe.digest()
    assert "halving" not in sys.modules


@pytest.mark.parametrize("head", ["", "format = 2\n", "format = 3\n"])
def test_no_run_folder_of_somebody_else_imports_anything(
    packages: Site, tmp_path: Path, head: str
) -> None:
    packages.module("trap", "raise SystemExit('imported')")
    file = tmp_path / "recipe.toml"
    for section in ('[strategy]\nname = "trap:X"', '[task]\nkind = "trap:X"\n[task.plugin]'):
        file.write_text(f"{head}{section}\n")
        with pytest.raises(RecipeError) as caught:
            read_run_recipe(file)
        assert "imported" not in str(caught.value)
        assert "trap:X" in str(caught.value) or "missing" in str(caught.value)


def test_a_run_goes_on_with_the_version_that_began_it_alone(packages: Site, tmp_path: Path) -> None:
    packages.package("halving", SOURCE, "1.0", ENTRIES)
    file = tmp_path / "recipe.toml"
    file.write_text(parse_recipe("", ["strategy.name=half"]).to_toml())
    packages.package("halving", SOURCE, "1.1", ENTRIES)
    with pytest.raises(UsageError, match=r"strategy\.version: the recipe was written with 1\.0"):
        make_strategy(read_run_recipe(file).strategy, ())
    with pytest.raises(RecipeError, match=r"strategy\.version: .* here is 1\.1"):
        read_recipe(file)


def test_a_site_carries_a_plug_in_unread(packages: Site) -> None:
    packages.package("halving", SOURCE, "1.0", ENTRIES)
    text = sent_document(parse_recipe("", ["strategy.name=halving:Half"]))
    sys.modules.pop("halving")
    packages.package("halving", "raise SystemExit('imported')", "1.0", ENTRIES)
    received = parse_document(text)
    assert isinstance(received.strategy, CarriedStrategy)
    assert received.digest() == hashlib.sha256(text.encode()).hexdigest()
    assert "halving" not in sys.modules


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("strategy.name=fedagv", '"fedavg"'),
        ("strategy.name=no_such_module:X", "No module named"),
        ("strategy.name=loose:Missing", "has no attribute 'Missing'"),
        ("strategy.name=loose:replace", "a class is needed"),
        ("strategy.name=loose:dataclass.x", "strategy.name: "),
        ("strategy.name='../../etc/passwd'", "strategy.name: "),
        ("strategy.name='loose:Half\\n'", "strategy.name: "),
        ("strategy.name='löse:Half'", "strategy.name: "),
        ("strategy.name=__main__:Half", "class of a script or notebook"),
        ("strategy.name=builtins:SystemExit", "has no method init"),
        ("strategy.name=pathlib:Path", "has no method init"),
    ],
)
def test_what_is_no_plug_in_is_refused_by_name(packages: Site, assignment: str, word: str) -> None:
    packages.module("loose", SOURCE)
    assert word in problems(assignment)


@pytest.mark.parametrize(
    ("assignments", "word"),
    [
        (["strategy.stepsize=1"], "strategy.stepsize: unknown key; did you mean step_size?"),
        (["strategy.step_size=much"], "strategy.step_size: 'much' given; a number needed"),
        (["strategy.step_size=nan"], "an option of loose:Half is not a number, text or list"),
        (
            ["strategy.weights=[1.0, 2.0, 3.0, 4.0]"],
            "strategy.weights: loose:Half takes no weights",
        ),
        (["strategy.version=9"], "strategy.version"),
        (["strategy.order=['" + "x" * 300_000 + "']"], "strategy.options: "),
    ],
)
def test_options_are_held_to_the_class_s_own_fields(
    packages: Site, assignments: list[str], word: str
) -> None:
    packages.module("loose", SOURCE)
    said = problems("strategy.name=loose:Half", *assignments)
    assert word in said
    assert len(said) < 1000


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise RuntimeError('boom')", "cannot be imported: RuntimeError: boom"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("syntax error", "cannot be imported: SyntaxError"),
        ("class Half: pass", "has no method init"),
        (SOURCE.replace("step_size: float", "weights: float"), "is called weights; rename it"),
        (SOURCE.replace("order: tuple[str, ...] = ()", "traits = 3"), "are int; Traits"),
        (
            SOURCE.replace("order: tuple[str, ...] = ()", "traits = Traits(fewest='many')"),
            "fewest: 'many' given",
        ),
        (
            SOURCE.replace("order: tuple[str, ...] = ()", "traits = Traits(takes_weights=True)"),
            "takes_weights is for linear strategies",
        ),
        (
            SOURCE.replace("order: tuple[str, ...] = ()", "def __post_init__(self): 1 / 0"),
            "cannot be made: ZeroDivisionError",
        ),
    ],
)
def test_a_plug_in_that_is_none_ends_before_work(packages: Site, source: str, word: str) -> None:
    packages.module("odd", source)
    assert word in problems("strategy.name=odd:Half")


def test_two_packages_with_one_name_are_told(packages: Site) -> None:
    packages.package("halving", SOURCE, "1.0", ENTRIES)
    packages.package("other", SOURCE, "1.0", {"cloister.strategies": {"half": "other:Half"}})
    assert "halving-dist, other-dist; give module:Class" in problems("strategy.name=half")


# --- declared properties ----------------------------------------------------------------------

SHARED = ["privacy.noise=shared", "federation.num_rounds=2"]


def test_only_a_linear_plug_in_runs_under_shared_noise(packages: Site) -> None:
    packages.module("loose", SOURCE)
    said = problems("strategy.name=loose:Half", *SHARED)
    assert "loose:Half needs each update" in said
    linear = parse_recipe("", ["strategy.name=loose:Mean", *SHARED]).strategy
    assert make_strategy(linear, ()).traits.is_linear


def test_traits_claim_nothing_by_default() -> None:
    class Bare(Strategy):
        def aggregate(self, state, updates):  # type: ignore[no-untyped-def]
            return state

    assert Bare().traits == Traits() == Traits(is_linear=False, takes_weights=False)
    assert Bare().init(START) == ServerState(START)


def test_a_linear_plug_in_sees_means_alone_and_a_stream_gives_the_same_bits(
    packages: Site,
) -> None:
    packages.module("loose", SOURCE)
    method = make_strategy(parse_recipe("", ["strategy.name=loose:Mean"]).strategy, ("a", "b"))
    state = method.init(START)
    held, summed = accumulator_of(method, keep=True), accumulator_of(method, keep=False)
    assert isinstance(held, Buffered)
    assert isinstance(summed, Streaming)
    for site, update in UPDATES.items():
        held.add(site, update)
        summed.add(site, update)
    for closing in (held, summed):
        assert closing.close(state).adapter["w"].tolist() == [2.5, 5.0]


class Leaning(MeanStrategy):
    traits = Traits(is_linear=True, takes_weights=True)

    def step(self, state: ServerState, mean: Adapter) -> ServerState:
        return dataclasses.replace(state, adapter=state.adapter + mean)


def test_a_linear_plug_in_may_weigh_sites_which_is_done_for_it() -> None:
    section = dataclasses.replace(named(Leaning), weights=(3.0, 1.0))
    method = make_strategy(section, ("a", "b"))
    moved = method.aggregate(ServerState(START), UPDATES)
    assert moved.adapter["v"].tolist() == [[3.0 + (3 * 6.0 + 12.0) / 4]]
    assert section.table()["weights"] == [3.0, 1.0]


# --- what it raises or returns ----------------------------------------------------------------


class Odd(Strategy):
    """Returns what it is told to."""

    returned: object = None
    started: object = None

    def init(self, adapter: Adapter) -> ServerState:
        if isinstance(self.started, Exception):
            raise self.started
        return self.started or ServerState(adapter)  # type: ignore[return-value]

    def aggregate(self, state, updates):  # type: ignore[no-untyped-def]
        if isinstance(self.returned, BaseException):
            raise self.returned
        return self.returned


NAN = Adapter({"w": np.array([np.nan, 2.0]), "v": np.array([[3.0]])})


@pytest.mark.parametrize(
    ("returned", "word"),
    [
        (None, "NoneType returned; a ServerState is needed"),
        (START, "Adapter returned"),
        (ZeroDivisionError("one\nby zero"), "ZeroDivisionError: one by zero"),
        (SystemExit(0), "SystemExit: 0"),
        (ServerState(START.select(["w"])), "adapter has other names or shapes: v"),
        (ServerState(Adapter({**START, "x": np.zeros(1)})), "names or shapes: x"),
        (ServerState(Adapter({**START, "w": np.zeros(3)})), "names or shapes: w"),
        (ServerState(NAN), "adapter has values that are not finite"),
        (ServerState({"w": 1}), "adapter is dict, not an Adapter"),  # type: ignore[arg-type]
        (ServerState(START, memory={"m": START}), "memory of m returned; init began with"),
        (ServerState(START, memory=3), "memory is not a mapping"),  # type: ignore[arg-type]
    ],
)
def test_what_a_plug_in_does_wrong_ends_the_round_by_its_name(
    monkeypatch: pytest.MonkeyPatch, returned: object, word: str
) -> None:
    monkeypatch.setattr(Odd, "returned", returned)
    method = make_strategy(named(Odd), ("a", "b"))
    with pytest.raises(PluginError, match="resume the run") as caught:
        method.aggregate(ServerState(START, 4), UPDATES)
    said = str(caught.value)
    assert word in said
    assert said.startswith(f"strategy.name: {__name__}:Odd failed in aggregate, round 5: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("started", "word"),
    [
        (ValueError("no"), "failed in init, before round 1: ValueError: no"),
        (ServerState(START.select(["w"])), "other names or shapes"),
        (ServerState(START, memory={"../../x": START}), "memory is called"),
        (ServerState(START, memory={"adapter": START}), "memory is called"),
        (ServerState(START, memory={"m": START.select(["w"])}), "m has other names"),
    ],
)
def test_a_state_to_begin_with_is_checked_too(
    monkeypatch: pytest.MonkeyPatch, started: object, word: str
) -> None:
    monkeypatch.setattr(Odd, "started", started)
    with pytest.raises(PluginError) as caught:
        make_strategy(named(Odd), ()).init(START)
    assert word in str(caught.value)


class Picky(Strategy):
    said: object = {"a": "too long"}

    def aggregate(self, state, updates):  # type: ignore[no-untyped-def]
        return state

    def left_out(self, updates):  # type: ignore[no-untyped-def]
        return self.said


def test_a_plug_in_may_leave_updates_out(monkeypatch: pytest.MonkeyPatch) -> None:
    method = make_strategy(named(Picky), ())
    assert isinstance(method, UpdateFilter)
    assert method.left_out(UPDATES) == {"a": "too long"}
    assert not isinstance(make_strategy(named(Odd), ()), UpdateFilter)
    for odd in ({"c": "who"}, {"a": 3}, None):
        monkeypatch.setattr(Picky, "said", odd)
        with pytest.raises(PluginError, match="failed in left_out: "):
            method.left_out(UPDATES)


# --- objects of Python ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Slow(Strategy):
    """Of this module."""

    share: float = 0.5

    def aggregate(self, state, updates):  # type: ignore[no-untyped-def]
        mean = updates["a"].scale(self.share)
        return dataclasses.replace(state, adapter=state.adapter + mean)


def test_a_linear_plug_in_cannot_leave_updates_out() -> None:
    class Both(MeanStrategy):
        def step(self, state: ServerState, mean: Adapter) -> ServerState:
            return state

        def left_out(self, updates: Mapping[str, Adapter]) -> dict[str, str]:
            return {}

    with pytest.raises(UsageError, match="cannot leave updates out"):
        named(Both)


def test_an_object_is_named_for_a_recipe_with_its_fields() -> None:
    section = named(Slow(share=0.25))
    assert section.name == f"{__name__}:Slow"
    assert json.loads(section.options) == {"share": 0.25}
    recipe = validated(dataclasses.replace(Recipe(), strategy=section))
    assert recipe.digest() != dataclasses.replace(Recipe(), strategy=named(Slow)).digest()
    moved = make_strategy(section, ()).aggregate(ServerState(START), UPDATES)
    assert moved.adapter["v"].tolist() == [[4.5]]


def test_a_class_of_a_notebook_works_in_this_process_and_is_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Local(Slow):
        pass

    section = named(Local(share=1.0))
    assert section.name == "__main__:Local"
    assert section.version.startswith("sha256:")
    moved = make_strategy(section, ()).aggregate(ServerState(START), UPDATES)
    assert moved.adapter["v"].tolist() == [[9.0]]
    monkeypatch.setattr("cloister.plugins._HERE", {})  # another process
    with pytest.raises(UsageError, match="put it into a module, and give module:Class"):
        make_strategy(section, ())


def test_an_object_that_no_recipe_could_state_is_refused() -> None:
    class Keeper(Strategy):
        def __init__(self, rate: float = 1.0) -> None:
            self.rate = rate

        def aggregate(self, state, updates):  # type: ignore[no-untyped-def]
            return state

    with pytest.raises(UsageError, match="make the class a dataclass"):
        named(Keeper())
    with pytest.raises(UsageError, match="has no method init"):
        named(object())  # type: ignore[arg-type]


# --- the registry -----------------------------------------------------------------------------


def test_a_new_strategy_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SOURCE.replace(
        "import Strategy, Traits",
        "import Strategy, Traits\nfrom cloister.strategies.method import Method",
    )
    source += '\nMETHODS = (Method(name="half-step", make=Half, fields=None),)\n'
    (tmp_path / "half_step.py").write_text(source)
    monkeypatch.setattr(
        "cloister.strategies.__path__", [*registry.strategies.__path__, str(tmp_path)]
    )
    found = registry.find_methods()
    sys.modules.pop("cloister.strategies.half_step")
    assert {*found} == {*registry.BUILT_IN, "half-step"}
    monkeypatch.setattr(plugins, "BUILT_IN", found)
    recipe = parse_recipe("", ["strategy.name=half-step", "strategy.step_size=0.25"])
    moved = make_strategy(recipe.strategy, ()).aggregate(ServerState(START), UPDATES)
    assert moved.adapter["v"].tolist() == [[4.5]]


def test_two_strategies_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloister.strategies import median

    again = Method(name="fedavg", make=lambda weights, options: None)  # type: ignore[arg-type,return-value]
    monkeypatch.setattr(median, "METHODS", (again,))
    with pytest.raises(ValueError, match="two strategies are called fedavg"):
        registry.find_methods()
