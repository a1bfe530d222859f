"""A study that begins with a finished run's adapter: its start, and what its ε covers."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import decode, encode
from cloister.api.run_result import Result
from cloister.cli.main import run as command
from cloister.client import round as round_of_site
from cloister.client.round import _check_start
from cloister.errors import BadFileError, BudgetError, CloisterError, RecipeError, RefusedError
from cloister.evidence.began import read_began
from cloister.ledger.ledger import Ledger
from cloister.ledger.stated import Basis
from cloister.protocol.exchange import RoundRequest, Step
from cloister.recipe import Recipe, parse_document
from cloister.recipe.continued import Former, continued
from cloister.server.former_run import FormerRun, read_former
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.server.start import begin_with
from cloister.simulation.compare import compare
from cloister.simulation.dry_run import dry_run
from cloister.simulation.ledgers import go_on
from cloister.simulation.result import RunResult
from cloister.simulation.run import Events, simulate
from cloister.simulation.study import SimulatedSites, prepare, workspace_of
from tests.support.studies import small_recipe, write_notes

# ε of each site's lifetime: a study of the private runs below costs 8.
BUDGETS = "privacy.site_budgets=[20, 20]"


@dataclass(frozen=True)
class Place:
    """Two finished runs of the small study: a private one with room left, and a plain one."""

    data: Path
    private: RunResult
    plain: RunResult

    def recipe(self, *assignments: str) -> Recipe:
        return small_recipe(self.data, *assignments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("from")
    data = folder / "data"
    private = small_recipe(data, BUDGETS)
    plain = small_recipe(data, "privacy.enabled=false")
    return Place(
        data,
        simulate(private, RunDirectory.create(folder / "private", private)),
        simulate(plain, RunDirectory.create(folder / "plain", plain)),
    )


def begun(recipe: Recipe, former: RunResult, out: Path) -> tuple[Recipe, RunDirectory]:
    """A new run's recipe and folder that begin with a finished run."""
    study, found = begin_with(recipe, former.run_dir)
    run = RunDirectory.create(out, study)
    go_on(run, found)
    return study, run


def last(run: RunDirectory) -> Adapter:
    return run.last().adapter


def crash(report: RoundReport) -> None:
    raise KeyboardInterrupt


def test_round_1_starts_from_the_finished_adapter(place: Place, tmp_path: Path) -> None:
    study, run = begun(
        place.recipe("privacy.enabled=false", f"data.old_test='{place.data / 'test.jsonl'}'"),
        place.plain,
        tmp_path / "next",
    )
    result = simulate(study, run)
    begun_at = (run.path / "start" / "adapter").read_bytes()
    assert begun_at == encode(last(RunDirectory(place.plain.run_dir))) != encode(last(run))
    # Its round 0 is the finished run's end, on the old test set and on the new one.
    assert result.untrained["accuracy"] == place.plain.test["accuracy"]
    assert result.old_test is not None
    assert result.old_test.before == run.untrained()["old_test"]
    assert result.old_test.before["accuracy"] == place.plain.test["accuracy"]
    assert result.old_test.after["accuracy"] == result.test["accuracy"]  # the same file
    assert study.study.former == read_former(place.plain.run_dir).former.recipe.digest()
    assert parse_document(study.document()).study == study.study  # what the sites are asked
    assert result.began is not None
    assert (result.began.run, result.began.adapter) == ("plain", study.study.start)
    document = json.loads(run.result_file.read_text())
    assert document["began"]["study"] == study.study.former
    assert document["old_test"]["after"]["accuracy"] == result.test["accuracy"]
    card = (run.adapter / "README.md").read_text()
    assert "## Began with a finished run" in card
    assert f"`{study.study.start}`" in card
    assert "the adapter of `plain`, before round 1" in card
    (group,) = compare([run.path]).groups
    assert group.old_test == (
        place.plain.test["accuracy"],
        result.test["accuracy"],
    )
    assert command(["compare", str(run.path), str(place.plain.run_dir)]) == 0
    assert "old_test_accuracy" in Result(result).rounds.columns


def test_a_resumed_run_that_began_with_another_equals_an_unbroken_one(
    place: Place, tmp_path: Path
) -> None:
    recipe = place.recipe("privacy.enabled=false", "federation.proximal_start=0.5")
    study, whole = begun(recipe, place.plain, tmp_path / "whole")
    simulate(study, whole)
    copied = tmp_path / "former"
    shutil.copytree(place.plain.run_dir, copied)
    study, broken = begun(recipe, replace(place.plain, run_dir=copied), tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        simulate(study, broken, events=Events(on_round=crash))
    shutil.rmtree(copied)  # it is not needed any more
    assert len(broken.metrics()) == 1
    simulate(RunDirectory.reopen(broken.path).recipe(), RunDirectory.reopen(broken.path))
    assert encode(last(broken)) == encode(last(whole))
    assert (broken.adapter / "adapter_model.safetensors").read_bytes() == (
        whole.adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_a_proximal_step_keeps_the_adapter_near_its_start(place: Place, tmp_path: Path) -> None:
    moved = []
    for weight in ("0.0", "1.0", "1000000.0"):
        study, run = begun(
            place.recipe("privacy.enabled=false", f"federation.proximal_start={weight}"),
            place.plain,
            tmp_path / weight,
        )
        simulate(study, run)
        moved.append((last(run) - decode((run.path / "start" / "adapter").read_bytes())).norm())
    assert moved[0] > 1.5 * moved[1] > 0  # μ = 1 halves each round's step at least
    assert moved[2] < 1e-4 * moved[0]


def test_one_ledger_counts_both_studies(place: Place, tmp_path: Path) -> None:
    study, run = begun(place.recipe(), place.private, tmp_path / "next")
    before = {name: Ledger(run.ledger(name)).head for name in ("east", "west")}
    dry = dry_run(*_dry(place))
    result = simulate(study, run)
    began = read_began(run.path)
    assert began is not None
    assert result.began == began
    for site, old in zip(result.sites, place.private.sites, strict=True):
        former = began.sites[site.name]
        assert former is not None
        assert former.head == before[site.name] == old.ledger
        assert former.promise == old.promise
        assert old.promise.basis is Basis.WHOLE_PLAN
        ledger = Ledger(run.ledger(site.name))
        ledger.check_anchor(former.head)  # the same chain goes on
        assert ledger.steps == site.steps == 2 * old.steps
        # What is shown is the lifetime's ε, and never that of the second study alone.
        assert site.promise.basis is Basis.LIFETIME_BUDGET
        assert site.promise.epsilon == 20
        assert site.spent.epsilon > old.spent.epsilon
        assert dry.promises[site.name] == site.promise
    card = (run.adapter / "README.md").read_text()
    assert "| 20.000 |" in card
    assert "all that the data set ever releases" in card
    assert f"entry {before['east'].seq}, `{before['east'].hash}`" in card
    assert "its lifetime budget, whatever its ledger charges" in card
    assert result.to_json()["sites"][0]["promise"]["basis"] == "lifetime-budget"


def _dry(place: Place) -> tuple[Recipe, None, FormerRun]:
    study, former = begin_with(place.recipe(), place.private.run_dir)
    return study, None, former


def test_a_budget_of_the_first_study_alone_covers_no_second_one(
    place: Place, tmp_path: Path
) -> None:
    small = place.recipe()
    former = simulate(small, RunDirectory.create(tmp_path / "first", small))
    study, run = begun(place.recipe(), former, tmp_path / "next")
    with pytest.raises(BudgetError, match="covers no round of this study after the earlier one"):
        simulate(study, run)
    # Nothing was charged, so the folder is used again; a charged one is kept.
    study, run = begun(place.recipe(), place.private, tmp_path / "next")
    with pytest.raises(KeyboardInterrupt):
        simulate(study, run, events=Events(on_round=crash))
    with pytest.raises(CloisterError, match="exists already"):
        RunDirectory.create(tmp_path / "next", study)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("lora.r=2", "lora.r: 2 given, private has 4; --from needs the same"),
        ("lora.train=b", "lora.train: 'b' given, private has 'both'"),
        ("lora.head=lora", "lora.head: 'lora' given, private has 'linear'"),
        ("task.labels=['a', 'b']", "task.labels: "),
        ("task.kind=multi-label-classification", "task.kind: 'multi-label-classification' given"),
        ("model.layers=1", "model.layers: 1 given, private has nothing"),
        ("model.center=english", 'private has nothing; --from needs the same (absent = ["model.c'),
        ("study.seed=1", "study.seed: 1 given, private has 0"),
        (f"model.sha256='{'0' * 64}'", "has other weights than the base of private"),
        ("lora.train=b-kept", "each site keeps a part of its adapter"),
    ],
)
def test_another_study_is_refused_in_one_message(place: Place, assignment: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        begin_with(place.recipe(assignment), place.private.run_dir)
    assert said in str(refused.value)


@pytest.mark.parametrize("train", ["both", "b-kept"])
def test_a_run_whose_sites_kept_a_part_begins_no_study_and_the_message_is_no_circle(
    place: Place, train: str
) -> None:
    kept = place.recipe("lora.train=b-kept")
    former = Former(run="kept", recipe=kept, base_sha256="0" * 64, adapter="1" * 64)
    with pytest.raises(RecipeError) as refused:
        continued(place.recipe(f"lora.train={train}"), former)
    said = str(refused.value)
    assert "no study can begin with it" in said
    assert "needs the same" not in said


def test_a_damaged_start_is_refused(place: Place, tmp_path: Path) -> None:
    study, run = begun(place.recipe(), place.private, tmp_path / "next")
    start = run.path / "start" / "adapter"
    start.write_bytes(start.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(BadFileError, match=r"changed or damaged, since its SHA-256 is not"):
        simulate(study, run)
    start.unlink()
    with pytest.raises(BadFileError, match="is missing"):
        simulate(study, run)


def test_a_run_that_is_not_finished_has_nothing_to_begin_with(place: Place, tmp_path: Path) -> None:
    recipe = place.recipe()
    RunDirectory.create(tmp_path / "run", recipe)
    with pytest.raises(CloisterError, match=r"--from: .* is not finished"):
        read_former(tmp_path / "run")
    with pytest.raises(CloisterError, match="not a run's folder"):
        read_former(tmp_path / "none")
    shutil.copytree(place.private.run_dir, tmp_path / "copy")
    latest = tmp_path / "copy" / "checkpoint" / "latest.json"
    good = latest.read_text()
    outside = json.dumps({**json.loads(good), "file": f"../{latest.name}"})
    for hostile in (
        "[]",
        "[" * 100_000,
        outside,
        good.replace('"round": ', '"round": 1e999, "x": '),
    ):
        latest.write_text(hostile)
        with pytest.raises(BadFileError, match=r"cannot be read"):
            read_former(tmp_path / "copy")
    latest.write_text(good)
    (tmp_path / "copy" / "adapter" / "cloister.json").write_text("{")
    with pytest.raises(BadFileError, match=r"--from: .* cannot be read"):
        read_former(tmp_path / "copy")


def test_a_site_refuses_a_round_1_with_another_adapter(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = begun(place.recipe(), place.private, tmp_path / "next")
    simulated = prepare(study)
    sites = SimulatedSites(study, run.path / "ledgers", simulated)

    context = SimpleNamespace(node_config={"partition-id": 0})
    site, workspace = sites(context)  # type: ignore[arg-type]
    assert site.start == study.study.start
    named = (run.path / "start" / "adapter").read_bytes()
    fresh = encode(workspace_of(simulated).whole)
    _check_start(site, RoundRequest(site.study, 1, named))
    _check_start(site, RoundRequest(site.study, 2, fresh))
    with pytest.raises(RefusedError, match="begins with another adapter"):
        _check_start(site, RoundRequest(site.study, 1, fresh))
    # Both ways of asking for a round look at it before anything is charged.
    charged = Ledger(run.ledger(site.name)).head
    for name in ("agreed_terms", "SecureExchange"):
        monkeypatch.setattr(round_of_site, name, lambda *_: None)
    monkeypatch.setattr(
        round_of_site.Query, "from_bytes", lambda body: SimpleNamespace(evaluates=False)
    )
    admitted = SimpleNamespace(
        site=replace(site, keys=SimpleNamespace()), workspace=workspace, plan=site.plan
    )
    for answer, step in (
        (round_of_site._decoded, Step.TRAIN),
        (lambda asked, request: round_of_site._answer_secure(asked, request, None), Step.MASK),
    ):
        with pytest.raises(RefusedError, match="begins with another adapter"):
            answer(admitted, RoundRequest(site.study, 1, fresh, step=step))  # type: ignore[operator]
    assert Ledger(run.ledger(site.name)).head == charged


def test_the_command_begins_and_says_what_it_adds(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_notes(tmp_path / "other.jsonl", 30, seed=2)
    recipe = tmp_path / "study.toml"
    recipe.write_text(place.recipe(f"data.test='{other}'").to_toml())
    words = ["simulate", str(recipe), "--from", str(place.private.run_dir)]
    assert command([*words, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "begins with the adapter of private, SHA-256" in said
    assert f"--set data.old_test={place.data / 'test.jsonl'}" in said
    assert "ε covers both studies" in said
    assert "as it began" in said
    assert command([*words, "--resume", "--out", str(tmp_path / "run")]) == 2
    assert "--from: given with --resume" in capsys.readouterr().err
    assert command([*words, "--dry-run"]) == 0
    assert "promised for everything that this data set ever releases" in capsys.readouterr().out
