"""A search is resumable, composes what it costs, and never chooses by a private score."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.cli.main import run
from cloister.errors import (
    BadFileError,
    BudgetError,
    CloisterError,
    LedgerError,
    RefusedError,
    UsageError,
)
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.privacy.accounting import epsilon
from cloister.recipe import Recipe, read_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.plans import plans_of
from cloister.simulation.tuning.search import Search, plan_search
from cloister.simulation.tuning.search_space import read_search
from cloister.simulation.tuning.suggestions import suggest
from cloister.simulation.tuning.tried_settings import open_search, run_search, score_of, winner
from cloister.simulation.tuning.tuned_recipe import tuned_recipe
from cloister.simulation.tuning.tuning_file import (
    TriedSetting,
    TuningFile,
    read_tuning,
    write_tuning,
)
from cloister.simulation.tuning.tuning_page import tuning_page
from tests.support.studies import small_assignments, write_notes

pytest.importorskip("optuna", reason="the extra tune is not installed")

RATE = "training.learning_rate=0.1:10:log"
CLIP = "privacy.max_grad_norm=1,4"


@pytest.fixture(scope="module")
def assignments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tuning")
    found = small_assignments(folder)
    return [*found, f"data.validation='{write_notes(folder / 'validation.jsonl', 30, seed=2)}'"]


def planned_of(assignments: list[str], *searches: str, **more: object) -> Search:
    options = {"trials": 6, "is_public": True} | more
    return plan_search(None, assignments, searches or (RATE, CLIP), **options)  # type: ignore[arg-type]


def emulated(
    score: Callable[[Recipe], float], ends: int | None = None
) -> Callable[[Recipe, RunDirectory, str], None]:
    """Runs a study without training: writes the row of one round, and the result.

    `ends`: the number of studies after which the process is killed.
    """
    left = [math.inf if ends is None else ends]

    def study(recipe: Recipe, place: RunDirectory, name: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        value = score(recipe)
        row = {"round": 1, "test": {"accuracy": value / 2}, "validation": {"accuracy": value}}
        place.append_metrics(row)
        place.result_file.write_text('{"test": {}}')

    return study


def by_rate(recipe: Recipe) -> float:
    """Best at a rate of 2 and a clip of 4."""
    off = abs(math.log(recipe.training.learning_rate / 2)) / 5
    return 1 - off - (0.0 if recipe.privacy.max_grad_norm == 4 else 0.1)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("training.learning_rate", "section.key=value is needed"),
        ("training.learning_rate=1:0.1", "LOW < HIGH is needed"),
        ("training.learning_rate=0:1:log", "0 < LOW < HIGH is needed"),
        ("training.learning_rate=1:inf", "'inf' is not a finite number"),
        ("training.learning_rate=a:b", "'a' is not a finite number"),
        ("training.learning_rate=1", "at least two different values"),
        ("training.learning_rate=1,1", "at least two different values"),
        ("lora.r=1.5:4", "takes integers only"),
        ("privacy.epsilon=1,8", "part of the promise"),
        ("privacy.noise_multiplier=1:2", "part of the promise"),
        ("study.seed=1,2", "not chosen by a score"),
        ("data.test='a','b'", "not chosen by a score"),
        ("nothing.at_all=1,2", "unknown section"),
        ("training.learning_rates=1:2", "unknown key"),
        ("training.learning_rate=-1:1", "-1.0 given"),
    ],
)
def test_an_invalid_search_is_one_message(
    assignments: list[str], search: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        planned_of(assignments, search)


def test_a_range_is_of_the_field_s_type_and_values_are_short() -> None:
    rate, rank = read_search([RATE, "lora.r=2:8"])
    assert rate.text(0.123456) == "0.1235"
    assert rate.text(0.09999999) == "0.1"  # rounding does not leave the range
    assert (rank.text(3.0), rank.is_integer, rank.size) == ("3", True, 7)
    assert rate.holds(2.0) == "2.0"
    assert rate.holds(20.0) is None


def test_suggestions_depend_on_seed_number_and_scores_alone() -> None:
    searched = read_search([RATE, CLIP])
    scored: list[tuple[dict[str, str], float | None]] = []
    for number in range(30):
        asked = [suggest(searched, scored, 7, smaller_is_better=False) for _ in range(2)]
        assert asked[0] == asked[1]
        rate, clip = (float(asked[0][one.field]) for one in searched)
        score = None if number == 3 else -abs(math.log(rate / 2)) - (clip == 1)
        scored.append((asked[0], score))
    assert suggest(searched, scored, 8, smaller_is_better=False) != suggest(
        searched, scored, 7, smaller_is_better=False
    )
    # Random settings have |log(rate / 2)| > 0.1 with probability 0.96: of 15 with both values of
    # the clip, half would have none nearer. The estimator's last ten are near the best.
    last = [score for _, score in scored[-10:] if score is not None]
    assert max(last) > -0.1


def test_a_small_space_is_searched_without_repetition() -> None:
    searched = read_search(["lora.r=2:4", "training.schedule=constant,warmup-linear"])
    scored: list[tuple[dict[str, str], float | None]] = []
    for number in range(6):
        asked = suggest(searched, scored, 0, smaller_is_better=True)
        scored.append((asked, float(number)))
    assert len({tuple(setting.items()) for setting, _ in scored}) == 6


def test_more_trials_than_settings_are_refused(assignments: list[str]) -> None:
    with pytest.raises(UsageError, match="only 2 different settings"):
        planned_of(assignments, CLIP, trials=3)
    with pytest.raises(UsageError, match="at most 1000 studies"):
        planned_of(assignments, RATE, trials=500, seeds=3)


def test_a_choice_needs_a_public_validation_file(assignments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"data\.validation: missing"):
        planned_of(assignments[:-1])
    test = next(one for one in assignments if one.startswith("data.test="))
    with pytest.raises(UsageError, match="the test file given"):
        planned_of([*assignments, test.replace("data.test", "data.validation")])
    with pytest.raises(UsageError, match="covered by no ε"):
        planned_of([*assignments, "data.fold=1/5"])


def test_a_search_that_is_killed_goes_on_as_if_it_had_not_been(
    assignments: list[str], tmp_path: Path
) -> None:
    planned = planned_of(assignments, seeds=2)
    open_search(tmp_path / "whole", planned)
    whole = run_search(planned, tmp_path / "whole", "accuracy", emulated(by_rate))
    for place in (1, 6, 11):  # in a trial's second study, and between two trials
        folder = tmp_path / str(place)
        open_search(folder, planned)
        with pytest.raises(KeyboardInterrupt):
            run_search(planned, folder, "accuracy", emulated(by_rate, ends=place))
        assert open_search(folder, planned).trials == read_tuning(folder).trials
        assert run_search(planned, folder, "accuracy", emulated(by_rate)) == whole
    assert len(whole.trials) == 6
    first = whole.trials[0]  # the recipe as it is
    assert first.setting == {"training.learning_rate": "0.1", "privacy.max_grad_norm": "1"}
    best = winner(whole.trials, "accuracy")
    assert best is not None
    assert best.score == max(trial.score or 0 for trial in whole.trials)
    assert best.test == pytest.approx((best.score or 0) / 2)


def test_the_first_best_wins_and_a_loss_is_smaller(tmp_path: Path) -> None:
    trials = [
        TriedSetting(number=n, setting={}, scores=(s,)) for n, s in ((1, 2.0), (2, 1.0), (3, 1.0))
    ]
    assert winner(trials, "perplexity") == trials[1]
    assert winner(trials, "accuracy") == trials[0]
    assert winner([TriedSetting(number=1, setting={}, why="…")], "accuracy") is None


def test_another_search_does_not_continue_a_folder(assignments: list[str], tmp_path: Path) -> None:
    planned = planned_of(assignments)
    open_search(tmp_path / "one", planned)
    open_search(tmp_path / "one", replace(planned, trials=9))
    for other in (
        planned_of(assignments, RATE),
        replace(planned, seeds=2),
        replace(planned, seed=1),
        replace(planned, budget=9.0),
        planned_of([*assignments, "lora.r=2"]),
    ):
        with pytest.raises(UsageError, match="holds another search, which differs in its"):
            open_search(tmp_path / "one", other)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="not a search"):
        open_search(tmp_path / "two", planned)
    with pytest.raises(UsageError, match=r"mine\.txt: is a file; give a new folder as --out"):
        open_search(tmp_path / "two" / "mine.txt", planned)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("setting", {"training.learning_rate": "0.2"}),
        ("setting", {"training.learning_rate": "x", "privacy.max_grad_norm": "1"}),
        ("setting", {"training.learning_rate": "nan", "privacy.max_grad_norm": "1"}),
        ("setting", {"training.learning_rate": "11", "privacy.max_grad_norm": "1"}),
        ("setting", {"training.learning_rate": "1", "privacy.max_grad_norm": "2"}),
        ("scores", ["nan"]),
        ("scores", "12"),
        ("tests", [True]),
    ],
)
def test_a_trial_of_no_search_is_one_message(
    assignments: list[str], tmp_path: Path, field: str, value: object
) -> None:
    planned = planned_of(assignments)
    open_search(tmp_path, planned)
    run_search(replace(planned, trials=1), tmp_path, "accuracy", emulated(by_rate))
    document = json.loads((tmp_path / "tune.json").read_text())
    document["trials"][0][field] = value
    (tmp_path / "tune.json").write_text(json.dumps(document))
    with pytest.raises(BadFileError, match=r"tune\.json: (cannot be read|trial 1 is not of)"):
        open_search(tmp_path, planned)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "trials": 3}'])
def test_a_damaged_file_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "tune.json").write_text(text)
    with pytest.raises(BadFileError, match=r"tune\.json: cannot be read"):
        read_tuning(tmp_path)


def test_a_search_s_file_reads_back(tmp_path: Path) -> None:
    whole = TuningFile(declared={"seed": 1}).with_trial(
        TriedSetting(number=1, setting={"lora.r": "2"}, scores=(0.1, 0.3), tests=(0.2, None))
    )
    write_tuning(tmp_path, whole)
    assert read_tuning(tmp_path) == whole
    assert whole.trials[0].score == pytest.approx(0.2)
    assert whole.trials[0].test is None


def test_settings_that_contradict_each_other_are_kept_with_the_reason(
    assignments: list[str], tmp_path: Path
) -> None:
    planned = planned_of(
        assignments, "strategy.name=fedavg,fedavgm", "strategy.momentum=0.5,0.9", trials=4
    )
    open_search(tmp_path / "out", planned)
    found = run_search(planned, tmp_path / "out", "accuracy", emulated(lambda recipe: 0.5))
    whys = [trial.why for trial in found.trials]
    assert sum("not a field of fedavg" in why for why in whys) == 2
    assert whys.count("") == 2


def test_a_study_that_diverges_is_a_trial_without_a_score(
    assignments: list[str], tmp_path: Path
) -> None:
    def score(recipe: Recipe) -> float:
        if recipe.training.learning_rate > 1:
            encode(Adapter({"a": np.array([np.nan], np.float32)}))
        return 0.5

    planned = planned_of(assignments, "training.learning_rate=0.5,2,3", trials=3)
    open_search(tmp_path / "out", planned)
    found = run_search(planned, tmp_path / "out", "accuracy", emulated(score))
    assert sorted(trial.why[:11] for trial in found.trials) == ["", "it diverged", "it diverged"]
    best = winner(found.trials, "accuracy")
    assert best is not None
    assert best.setting == {"training.learning_rate": "0.5"}


def test_early_stopping_scores_the_round_that_is_released(tmp_path: Path) -> None:
    recipe = read_recipe(
        None, ["federation.patience=1", "data.validation=v.jsonl", "data.test=t.jsonl"]
    )
    place = RunDirectory.create(tmp_path / "run", recipe)
    for number, score in enumerate((0.5, 0.7, 0.7, 0.6), 1):
        row = {"validation": {"accuracy": score}, "test": {"accuracy": number}}
        place.append_metrics({"round": number, **row})
    assert score_of(place, "validation", "accuracy") == 0.7
    assert score_of(place, "test", "accuracy") == 2


@pytest.mark.parametrize("base", [[], ["model.base=intfloat/multilingual-e5-small"]])
def test_trial_1_is_the_recipe_also_where_it_fills_in_a_rate_by_its_noise(base: list[str]) -> None:
    sets = ["lora.train=none", "data.validation=v.jsonl", "privacy.epsilon=2", *base]
    planned = planned_of(sets, "training.learning_rate=0.01:100:log")
    own = planned.setting_of_recipe()
    assert own is not None
    assert planned.base.strategy.name == "fedavgm"  # filled in, as the rate is
    assert planned.with_setting(own).digest() == planned.base.digest()
    other = planned.with_setting({"training.learning_rate": "3.0"})
    assert other.privacy.max_grad_norm == planned.base.privacy.max_grad_norm == 1.0
    assert other.model == planned.base.model  # its vectors too, for another base


def test_the_winner_s_recipe_reads_back_and_says_what_chose_it(
    assignments: list[str], tmp_path: Path
) -> None:
    planned = planned_of(assignments, trials=4)
    open_search(tmp_path / "out", planned)
    found = run_search(planned, tmp_path / "out", "accuracy", emulated(by_rate))
    best = winner(found.trials, "accuracy")
    assert best is not None
    text = tuned_recipe(planned, best, 4, "accuracy")
    (tmp_path / "best.toml").write_text(text, encoding="utf-8")
    again = read_recipe(tmp_path / "best.toml")
    assert again.digest() == planned.with_setting(dict(best.setting)).digest()
    assert again.study.name == planned.base.study.name
    assert again.privacy.site_budgets == ()
    assert f"# Chosen by cloister tune, trial {best.number} of 4: accuracy" in text
    assert text.count("# tuned: ") == 2
    assert f"learning_rate = {best.setting['training.learning_rate']}  # tuned: 0.1 to 10" in text
    page = tuning_page(planned, found.trials, best, "accuracy")
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "http" not in page
    assert "costs no privacy" in page


def test_text_of_a_recipe_is_harmless_in_page_and_comments(assignments: list[str]) -> None:
    planned = planned_of(assignments, RATE)
    data = replace(planned.base.data, validation="<b>.jsonl")
    evil = replace(planned, base=replace(planned.base, data=data))
    best = TriedSetting(number=1, setting={"training.learning_rate": "1.0"}, scores=(0.5,))
    assert "<b>" not in tuning_page(evil, [best], best, "accuracy")
    assert "<b>.jsonl" in tuned_recipe(evil, best, 1, "accuracy").partition("\n")[0]


def test_private_records_need_a_budget(assignments: list[str], tmp_path: Path) -> None:
    sets = [word for value in assignments for word in ("--set", value)]
    out = tmp_path / "out"
    assert run(["tune", *sets, "--search", RATE, "--out", str(out)]) == RefusedError.exit_code
    less = ["--budget", "9", "--trials", "3"]
    assert run(["tune", *sets, "--search", RATE, *less, "--out", str(out)]) == 5
    assert not out.exists()  # nothing was begun, so nothing was charged
    with pytest.raises(UsageError, match="both given"):
        planned_of(assignments, is_public=True, budget=8.0)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="more than 0"):
            planned_of(assignments, is_public=False, budget=wrong)
    for fields, error in (
        ("privacy.enabled=false", RefusedError),
        ("privacy.site_budgets=[9, 9]", UsageError),
    ):
        with pytest.raises(error, match=fields.partition("=")[0]):
            planned_of([*assignments, fields], is_public=False, budget=30.0)
    with pytest.raises(UsageError, match="all trials have one plan"):
        planned_of(assignments, "training.local_steps=1,2", is_public=False, budget=30.0, trials=2)


def test_the_trials_compose(assignments: list[str]) -> None:
    planned = planned_of(assignments, is_public=False, budget=30.0, trials=3, seeds=2)
    plan = next(iter(plans_of(planned.base, ("east", "west")).values()))
    one, event = plan.epsilon_after(2), plan.event(4)  # two rounds of two steps
    assert planned.together is not None
    # Six studies are one of six times the steps; their ε is more than one's, and less than six.
    exact = epsilon([replace(event, steps=6 * 4)], 1e-5)
    assert planned.together.epsilon == pytest.approx(exact, rel=1e-9)
    assert one < exact < 6 * one
    with pytest.raises(BudgetError, match=r"covers [45]:"):
        planned_of(assignments, is_public=False, budget=0.95 * exact, trials=6)
    planned_of(assignments, is_public=False, budget=1.02 * exact, trials=6)


@pytest.fixture(scope="module")
def private(assignments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials on private records, as the command runs them."""
    out = tmp_path_factory.mktemp("private") / "out"
    sets = [word for value in assignments for word in ("--set", value)]
    options = ["--budget", "20", "--trials", "2", "--out", str(out)]
    page = ["--page", str(out.parent / "page.html")]
    assert run(["tune", *sets, "--search", RATE, "--search", CLIP, *options, *page, "--json"]) == 0
    return out


def test_each_trial_is_charged_to_the_same_ledgers(private: Path) -> None:
    spent = []
    for number in (1, 2):
        place = RunDirectory.reopen(private / f"trial-{number:03d}_seed-0")
        ledgers = place.ledgers()
        assert set(ledgers) == {"east", "west"}
        verdicts = {
            site: verify(LedgerFile(path).entries(), str(path)) for site, path in ledgers.items()
        }
        assert {verdict.budget_epsilon for verdict in verdicts.values()} == {20.0}
        spent.append(verdicts["east"].history.spent)
    # Two rounds of two steps each, then as many again, under another plan if the clip differs.
    assert [one.total_steps for one in spent] == [4, 8]
    plan = next(iter(plans_of(place.recipe(), ("east", "west")).values()))
    both = epsilon(spent[1].events, 1e-5)
    assert both == pytest.approx(epsilon([plan.event(8)], 1e-5), rel=1e-9)
    stated = (private / "best.toml").read_text(encoding="utf-8")
    assert f"All 2 studies together: ε = {math.ceil(both * 1e4) / 1e4:.4f} at δ = 1e-05" in stated
    assert "one record added or removed" in stated
    page = (private.parent / "page.html").read_text(encoding="utf-8")
    assert "a study that follows adds its own ε" in page


def test_the_same_command_does_nothing_again(
    private: Path, assignments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in private.rglob("*.ledger")}
    sets = [word for value in assignments for word in ("--set", value)]
    options = ["--budget", "20", "--trials", "2", "--out", str(private)]
    assert run(["tune", *sets, "--search", RATE, "--search", CLIP, *options]) == 0
    shown = capsys.readouterr()
    assert "2 of 2 trials were closed before" in shown.err
    assert "chosen: trial" in shown.out
    assert {path: path.read_bytes() for path in private.rglob("*.ledger")} == before
    document = json.loads((private / "tune.json").read_text())
    assert document["declared"]["budget"] == 20.0


def test_what_was_charged_can_be_neither_left_out_nor_lost(
    private: Path, assignments: list[str], tmp_path: Path
) -> None:
    """ε is stated for all trials, and the next one's ledgers go on from the last one's."""
    planned = planned_of(assignments, is_public=False, budget=20.0, trials=2)
    for place in ("closed", "begun", "ledger", "ledgers", "study"):
        shutil.copytree(private, tmp_path / place)
    with pytest.raises(UsageError, match=r"--trials: 1 given, but 2 were begun"):
        open_search(tmp_path / "closed", replace(planned, trials=1))
    begun = TuningFile(declared=planned.declared, trials=read_tuning(private).trials[:1])
    write_tuning(tmp_path / "begun", begun)
    with pytest.raises(UsageError, match=r"--trials: 1 given, but 2 were begun"):
        open_search(tmp_path / "begun", replace(planned, trials=1))
    last = "trial-002_seed-0"
    (tmp_path / "ledger" / last / "ledgers" / "west.ledger").unlink()
    shutil.rmtree(tmp_path / "ledgers" / last / "ledgers")
    shutil.rmtree(tmp_path / "study" / last)
    for place, error, message in (
        ("ledger", LedgerError, "no ledger of west"),
        ("ledgers", LedgerError, "no ledger of east, west"),
        ("study", BadFileError, "trial-002_seed-0: missing"),
    ):
        with pytest.raises(error, match=message):
            run_search(replace(planned, trials=3), tmp_path / place, "accuracy", emulated(by_rate))
        assert not list((tmp_path / place).glob("trial-003*/ledgers"))


def test_without_optuna_the_message_says_what_to_install(
    assignments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CloisterError, match=r"pip install 'cloister\[tune\]'"):
        planned_of(assignments)
