"""A site's study with correlated noise: its file of recent noise, kills, and its end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.wire import encode
from cloister.cli.main import run
from cloister.client.banding import NO_MARKS, Banding, erase, noise_folder, state_bytes
from cloister.client.personal import PersonalAdapter
from cloister.client.round import answer
from cloister.errors import RefusedError, RoundSpentError
from cloister.privacy.correlated_noise import RecentNoise
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe
from cloister.simulation.study import prepare, workspace_of
from tests.client.test_optimizer_memory import again, opened
from tests.support.ledgers import banded_plan
from tests.support.studies import small_assignments, small_recipe

PLAN = banded_plan()
BANDED = ["training.local_steps=1", "federation.num_rounds=6", "privacy.noise_bands=3"]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "study", *BANDED)


def ask(recipe: Recipe, folder: Path, number: int, step: Step = Step.TRAIN) -> Status:
    site, workspace = again(recipe, folder), workspace_of(prepare(recipe))
    request = RoundRequest(site.study, number, encode(workspace.whole), step=step)
    return answer(site, workspace, request, lambda: None).status


def files(folder: Path) -> list[Path]:
    return sorted(noise_folder(folder / "ledgers" / "east.ledger").glob("*"))


def test_a_site_keeps_the_last_noise_until_the_study_ends(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    opened(recipe, folder)
    sizes = []
    for number in range(1, 6):
        assert ask(recipe, folder, number) is Status.TRAINED
        (file,) = files(folder)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        sizes.append(file.stat().st_size)
    values = workspace_of(prepare(recipe)).start.size
    assert state_bytes(3, values) == 16 * values
    assert sizes[0] < sizes[1]
    assert sizes[2:] == [sizes[1]] * 3
    assert 0 < sizes[1] - state_bytes(3, values) < 500
    assert ask(recipe, folder, 6) is Status.TRAINED
    assert files(folder) == []
    assert again(recipe, folder).ledger.steps == 2


def test_a_certificate_is_asked_at_the_end_and_removes_the_noise(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    opened(recipe, folder)
    ask(recipe, folder, 1)
    ask(recipe, folder, 0, Step.CERTIFY)
    assert files(folder) == []
    assert "asked for before its last round, so it ends at this site" in caplog.text
    with pytest.raises(RefusedError, match=r"is missing .*asked for the study's certificate"):
        ask(recipe, folder, 2)
    caplog.clear()
    ask(recipe, folder, 0, Step.CERTIFY)  # asked again: nothing is left to remove
    assert "before its last round" not in caplog.text


def test_without_its_noise_the_study_ends_with_one_message_and_no_charge(
    recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    opened(recipe, folder)
    ask(recipe, folder, 1)
    (file,) = files(folder)
    first = file.read_bytes()
    ask(recipe, folder, 2)
    before = again(recipe, folder).ledger.head
    for content, why in ((None, "is missing"), (first, "another time"), (b"cut", "is damaged")):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(RefusedError, match=f"{why}.*this study ends at this site"):
            ask(recipe, folder, 3)
    assert again(recipe, folder).ledger.head == before
    # What was released is sent again: no noise is needed for that.
    assert ask(recipe, folder, 2) is Status.TRAINED


@pytest.mark.parametrize("at", ["_encoded", "_trained"])
def test_a_kill_between_charge_and_release_leaves_a_step_that_nobody_sees(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Before the noise is written, or after: the round stays spent, and the next one goes on."""
    folder = tmp_path / "run"
    opened(recipe, folder)
    ask(recipe, folder, 1)

    def cut_off(*_: object, **__: object) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(f"cloister.client.round.{at}", cut_off)
        with pytest.raises(RoundSpentError):
            ask(recipe, folder, 2)
    with pytest.raises(RoundSpentError):
        ask(recipe, folder, 2)
    assert ask(recipe, folder, 3) is Status.TRAINED
    site = again(recipe, folder)
    assert site.banding is not None
    assert site.ledger.released_rounds(site.study, site.plan) == (True, False, True)
    (file,) = files(folder)
    assert json.loads(file.read_bytes().split(b"\n", 1)[0])["step"] == 3


def test_noise_is_on_disk_before_anything_that_follows_from_its_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a crash would leave a memory of one noise, and later steps would draw another."""
    recipe = small_recipe(tmp_path / "study", *BANDED, "training.optimizer=adamw")
    folder = tmp_path / "run"
    opened(recipe, folder)

    def cut_off(*_: object, **__: object) -> None:
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(PersonalAdapter, "save", cut_off)
        with pytest.raises(RoundSpentError):
            ask(recipe, folder, 1)
    (file,) = files(folder)
    before = file.read_bytes()
    assert json.loads(before.split(b"\n", 1)[0])["step"] == 1
    assert ask(recipe, folder, 2) is Status.TRAINED
    # The second step's file still has the first step's noise: it is the older of two vectors.
    assert before.split(b"\n", 1)[1][:-32] in file.read_bytes()


def test_one_process_of_a_site_is_in_a_round_at_a_time(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    site = opened(recipe, folder)
    assert site.banding is not None
    with site.banding.alone(), pytest.raises(RefusedError, match="another process"):
        ask(recipe, folder, 1)
    assert ask(recipe, folder, 1) is Status.TRAINED


# --- the file ---------------------------------------------------------------------------------


def banding(folder: Path) -> Banding:
    return Banding(folder / "noise", "a" * 64, NO_MARKS, "key")


def noise(step: int) -> RecentNoise:
    kept = min(step, 2)
    return RecentNoise(step, [np.arange(5, dtype=np.int64) - 2**61 + at for at in range(kept)])


def test_the_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    site = banding(tmp_path)
    for step in (1, 2, 7):
        site.save(PLAN, noise(step))
        found = site.recent(PLAN, [True] * step)
        assert found.step == step
        assert [list(v) for v in found.vectors] == [list(v) for v in noise(step).vectors]


@pytest.mark.parametrize(
    ("released", "is_taken"),
    [
        ([True] * 4, True),
        ([True] * 4 + [False], True),  # charged, and cut off before its noise was written
        ([True] * 4 + [False, False], True),
        ([True] * 3 + [False], True),  # cut off after its noise was written
        ([True] * 3, False),  # a ledger from an older time
        ([True] * 5, False),  # noise from an older time
        ([True] * 4 + [False, True], False),
    ],
)
def test_noise_is_taken_where_every_released_step_has_its_own(
    tmp_path: Path, released: list[bool], is_taken: bool
) -> None:
    site = banding(tmp_path)
    site.save(PLAN, noise(4))
    if is_taken:
        assert site.recent(PLAN, released).step == 4
    else:
        with pytest.raises(RefusedError, match="another time"):
            site.recent(PLAN, released)


def test_another_plan_begins_anew_and_removes_the_former_noise(tmp_path: Path) -> None:
    site, other = banding(tmp_path), replace(PLAN, max_grad_norm=0.5)
    site.save(PLAN, noise(4))
    assert site.recent(other, [False]).step == 0
    site.save(other, noise(1))
    assert len(list(site.folder.iterdir())) == 1
    with pytest.raises(RefusedError, match="is missing"):
        site.recent(PLAN, [True] * 4)
    site.end()
    assert list(site.folder.iterdir()) == []


def test_noise_that_is_out_of_use_is_overwritten(tmp_path: Path) -> None:
    site = banding(tmp_path)
    site.save(PLAN, noise(4))
    (path,) = site.folder.iterdir()
    held = path.open("rb")  # as a name that somebody else made
    site.save(PLAN, noise(5))
    assert not any(held.read())
    held.close()
    kept = path.open("rb")
    erase(path)
    assert not any(kept.read())
    kept.close()


@pytest.mark.parametrize("content", [b"", b"\n" * 40, b"{}", b"x" * 5000])
def test_a_damaged_file_is_one_message(tmp_path: Path, content: bytes) -> None:
    site = banding(tmp_path)
    site.save(PLAN, noise(4))
    (path,) = site.folder.iterdir()
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="is damaged"):
        site.recent(PLAN, [True] * 4)


# --- whole studies ----------------------------------------------------------------------------


@pytest.mark.nightly  # in every run: tests/ledger/test_banded_ledger.py, the parts of it
def test_a_study_runs_is_certified_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [*small_assignments(tmp_path / "study"), *BANDED]
    options = [a for value in values for a in ("--set", value)]
    out = tmp_path / "run"
    assert run(["simulate", *options, "--out", str(out)]) == 0
    assert run(["audit", "certificate", str(out)]) == 0
    folder = out / "certificates"
    capsys.readouterr()
    keys = ["--keys", str(folder / "keys.json")]
    assert run(["audit", "verify", str(folder / "bundle.zip"), *keys, "--json"]) == 0
    first, _ = json.loads(capsys.readouterr().out)["sites"]
    assert 7.9 < first["promise"]["epsilon"] <= 8.0
    assert first["rounds"] == first["released"] == 6
    assert list((out / "ledgers").glob("*.noise/*")) == []
    assert "correlated over 3 rounds" in (out / "adapter" / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("federation.num_rounds=7", "3 does not divide federation.num_rounds = 7"),
        ("training.local_steps=2", "needs one step a round"),
        ("training.expected_batch_size=14", "sample rate of 1.05 in a group"),
        ("lora.train=alternate", "rounds train different values"),
        ("training.probe_rounds=2", "trains other values first"),
        ("privacy.noise=shared", "noise_bands: 3 given with shared noise"),
        ("privacy.noise_multiplier=0", "no noise to correlate"),
        ("privacy.noise_bands=33", "noise_bands"),
    ],
)
def test_what_breaks_the_law_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, said: str
) -> None:
    values = [*small_assignments(tmp_path / "study"), *BANDED, value]
    options = [a for one in values for a in ("--set", one)]
    assert run(["plan", *options]) != 0
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_plan_states_gain_state_and_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [*small_assignments(tmp_path / "study"), *BANDED]
    options = [a for one in values for a in ("--set", one)]
    assert run(["plan", *options]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "each drawn in one of 3 rounds with probability 0.75" in told
    assert "error of the summed gradients with correlated noise, over that without" in told
    assert "recommended" in told
