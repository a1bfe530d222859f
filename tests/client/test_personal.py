"""A site's own factor B stays at the site, is charged, and survives a stop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.client.personal import PersonalAdapter
from cloister.client.round import answer
from cloister.client.site import Site
from cloister.errors import AdapterFormatError, RecipeError
from cloister.ledger.ledger import Ledger
from cloister.protocol.exchange import RoundRequest
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.personal import site_models
from cloister.simulation.run import simulate
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from cloister.strategies.build import make_strategy
from tests.support.ledgers import odometer
from tests.support.studies import small_recipe

SHAPES = {"x.lora_B.weight": (2,)}


def kept(value: float) -> Adapter:
    return Adapter({"x.lora_B.weight": np.full(2, float(value))})


def test_a_round_starts_from_the_last_one_before_it(tmp_path: Path) -> None:
    own = PersonalAdapter(tmp_path / "own", "s" * 64)
    assert own.before(1, SHAPES) is None
    for number in (1, 2, 4):
        own.save(number, kept(number))
    found = [own.before(number, SHAPES) for number in (4, 5, 9)]
    assert [float(f["x.lora_B.weight"][0]) for f in found if f is not None] == [2.0, 4.0, 4.0]
    assert len(list((tmp_path / "own").iterdir())) == 2  # the last, and the one before it
    assert PersonalAdapter(tmp_path / "own", "t" * 64).before(9, SHAPES) is None


def test_a_damaged_file_is_not_started_from(tmp_path: Path) -> None:
    own = PersonalAdapter(tmp_path, "s" * 64)
    own.save(1, kept(1.0))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(AdapterFormatError):
        own.before(2, SHAPES)
    with pytest.raises(AdapterFormatError):
        PersonalAdapter(tmp_path, "s" * 64).before(2, {"y": (2,)})


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "study", "lora.train=b-kept")


def opened(recipe: Recipe, folder: Path) -> Site:
    run = RunDirectory.create(folder, recipe)
    begin_ledgers(prepare(recipe), run)
    sites = SimulatedSites(recipe, run.path / "ledgers")
    context = Context(0, 0, {"partition-id": 0}, RecordDict(), {})
    return sites(context)[0]


def ask(site: Site, recipe: Recipe, number: int) -> Adapter:
    workspace = workspace_of(prepare(recipe))
    request = RoundRequest(site.study, number, encode(workspace.whole))
    reply = answer(site, workspace, request, lambda: None)
    return decode(reply.delta, workspace.sent.shapes)


def test_b_moves_at_the_site_and_only_the_rest_leaves(recipe: Recipe, tmp_path: Path) -> None:
    site, workspace = opened(recipe, tmp_path / "run"), workspace_of(prepare(recipe))
    assert site.personal is not None
    shapes = workspace.start.select(workspace.kept).shapes
    assert all("lora_B" in name for name in shapes)
    sent = ask(site, recipe, 1)
    assert not sent.keys() & workspace.kept
    assert {name for name, _ in site.plan.message} == set(sent)
    first = site.personal.before(2, shapes)
    assert first is not None
    assert first.norm() > 0
    ask(site, recipe, 2)
    second = site.personal.before(3, shapes)
    assert second is not None
    assert (second - first).norm() > 0
    # Both rounds cost what a round costs that sends everything.
    whole = opened(small_recipe(tmp_path / "study", "lora.train=both"), tmp_path / "other")
    for number in (1, 2):
        ask_whole = replace(whole, personal=None)
        ask(ask_whole, small_recipe(tmp_path / "study", "lora.train=both"), number)
    delta = site.plan.delta
    assert odometer(site.ledger, delta) == odometer(whole.ledger, delta) > 0


def test_asked_again_the_site_s_own_stays_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    site, workspace = opened(recipe, tmp_path / "run"), workspace_of(prepare(recipe))
    assert site.personal is not None
    shapes = workspace.start.select(workspace.kept).shapes
    one = ask(site, recipe, 1)
    before = site.personal.before(2, shapes)
    other = ask(site, recipe, 1)
    after = site.personal.before(2, shapes)
    assert before is not None
    assert after is not None
    assert (one - other).norm() == (before - after).norm() == 0.0


def test_nothing_is_charged_on_a_damaged_own_adapter(recipe: Recipe, tmp_path: Path) -> None:
    site = opened(recipe, tmp_path / "run")
    ask(site, recipe, 1)
    steps = Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps
    for file in (tmp_path / "run" / "ledgers" / "east.personal").iterdir():
        file.write_bytes(b"damaged")
    with pytest.raises(AdapterFormatError):
        ask(site, recipe, 2)
    assert Ledger(tmp_path / "run" / "ledgers" / "east.ledger").steps == steps


@pytest.fixture
def beside(tmp_path: Path) -> Recipe:
    return small_recipe(
        tmp_path / "study",
        "training.personal=true",
        "training.proximal=0.5",
        "privacy.noise_multiplier=0.0",
    )


def test_a_site_s_own_adapter_goes_on_from_round_to_round(beside: Recipe, tmp_path: Path) -> None:
    """MR-MTL: it starts from its own, and what it sends is how its own differs from the shared."""
    site, workspace = opened(beside, tmp_path / "run"), workspace_of(prepare(beside))
    assert site.personal is not None
    start, shapes = workspace.start, workspace.start.shapes
    first = ask(site, beside, 1)
    own = site.personal.before(2, shapes)
    assert own is not None
    assert ((own - start) - first).norm() <= 1e-6 * first.norm()
    second = ask(site, beside, 2)  # the shared one stayed where it was
    moved = site.personal.before(3, shapes)
    assert moved is not None
    assert ((moved - start) - second).norm() <= 1e-6 * second.norm()
    assert (moved - own).norm() > 0
    # Asked again nothing is trained, and its own stays.
    assert (ask(site, beside, 2) - second).norm() == 0
    assert site.ledger.steps == 4


def test_a_strong_pull_keeps_a_site_at_the_shared_adapter(tmp_path: Path) -> None:
    """Without gradients in the way: x_k − x shrinks by 1 − η λ at each step."""
    recipe = small_recipe(
        tmp_path / "study",
        "training.personal=true",
        "training.proximal=2.0",
        "privacy.noise_multiplier=0.0",
        "training.learning_rate=0.25",
    )
    site, workspace = opened(recipe, tmp_path / "run"), workspace_of(prepare(recipe))
    assert site.personal is not None
    away = workspace.start + workspace.start.scale(0.1)
    site.personal.save(1, away)
    still = replace(site, units=[])
    sent = ask(still, recipe, 2)
    wanted = workspace.start.scale(0.1 * (1 - 0.25 * 2.0) ** 2)
    assert (sent - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_study_has_both_scores_and_its_shared_adapter_is_the_mean_of_all(
    beside: Recipe, tmp_path: Path
) -> None:
    place = RunDirectory.create(tmp_path / "run", beside)
    result = simulate(beside, place)
    assert result.personal_test is not None
    assert result.to_json()["personal_test"].keys() == result.test.keys()
    workspace = workspace_of(prepare(beside))
    own = site_models(prepare(beside), workspace, place, workspace.whole)
    assert len(own) == 2
    state = make_strategy(beside.strategy, ()).init(workspace.whole)
    shared = place.load(state, prepare(beside).recipe.digest()).adapter
    one, other = own.values()
    assert (shared - (one + other).scale(0.5)).norm() <= 1e-5 * shared.norm()
    assert all((place.path / "personal" / name).is_dir() for name in own)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["training.proximal=0.0"], "proximal"),
        (["lora.train=b-kept"], "fully shared"),
        (["strategy.name=fedex", "lora.residual=4"], "fully shared"),
        (["training.mode=gradient-rounds", "training.local_steps=1"], "proximal"),
        (["strategy.name=flexlora", "lora.ranks=[1, 2]"], "one rank"),
    ],
)
def test_what_an_own_adapter_does_not_go_with_is_refused(
    tmp_path: Path, assignments: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        small_recipe(
            tmp_path / "study", "training.personal=true", "training.proximal=0.5", *assignments
        )
