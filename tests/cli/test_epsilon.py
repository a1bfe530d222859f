"""`cloister epsilon` prints ε with its terms, or one message."""

import json
import math

import pytest

from cloister.cli.main import run
from cloister.privacy import accounting
from cloister.privacy.accounting import epsilon
from cloister.privacy.events import GaussianEvent

LORA = ["--noise-multiplier", "1", "--sample-rate", "0.032", "--steps", "600"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run(["epsilon", *arguments, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


# Row L1 of the reference table: PLD 5.0474, RDP 5.5999 (to 2 %), PRV 5.0577.
@pytest.mark.parametrize(
    ("accountant", "expected", "within"),
    [("pld", 5.0474, 2e-4), ("rdp", 5.5999, 0.112), ("prv", 5.0577, 1e-3)],
)
def test_each_accountant_agrees_with_the_reference(
    accountant: str, expected: float, within: float, capsys: pytest.CaptureFixture[str]
) -> None:
    document = printed(capsys, *LORA, "--accountant", accountant)
    assert document.pop("epsilon") == pytest.approx(expected, abs=within)
    assert document == {"delta": 1e-5, "accountant": accountant, "neighbouring": "add-remove"}


def test_events_compose_alone_and_with_the_single_one(capsys: pytest.CaptureFixture[str]) -> None:
    once = GaussianEvent(noise_multiplier=1.0, sample_rate=0.032, steps=600)
    both = ["--event", "1,0.032,600"]
    for arguments in ([*LORA, *both], [*both, *both]):
        assert printed(capsys, *arguments)["epsilon"] == epsilon([once, once], 1e-5)


def test_the_sentence_names_unit_relation_delta_and_accountant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["epsilon", *LORA, "--delta", "1e-6"]) == 0
    said = capsys.readouterr().out
    for word in ("ε = 5", "δ = 1e-06", "one record added or removed", "PLD"):
        assert word in said


def test_no_noise_is_infinite(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--event", "0,0.1,1"]
    assert printed(capsys, *arguments)["epsilon"] is None
    assert run(["epsilon", *arguments]) == 0
    assert "ε = ∞" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give all three, or --event"),
        (["--noise-multiplier", "1"], "give all three, or --event"),
        (["--event", "1,0.1,5", "--steps", "3"], "give all three, or --event"),
        (["--event", "1,1.5,5"], "sample rate: 1.5 given"),
        (["--event", "-1,0.1,5"], "noise multiplier: -1.0 given"),
        (["--event", "nan,0.1,5"], "noise multiplier: nan given"),
        (["--event", "1,nan,5"], "sample rate: nan given"),
        (["--event", "1,0.1,-5"], "steps: -5 given"),
        (["--event", "1,0.1"], "as in 1.0,0.032,600"),
        (["--event", "a,b,c"], "as in 1.0,0.032,600"),
        (["--event", "1,0.1,2.5"], "as in 1.0,0.032,600"),
        ([*LORA, "--delta", "0"], "--delta: 0.0 given"),
        ([*LORA, "--delta", "nan"], "--delta: nan given"),
        ([*LORA, "--accountant", "guess"], "accountant"),
        (["--steps", "many"], "many"),
    ],
)
def test_wrong_input_is_one_message(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["epsilon", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_prv_that_does_not_converge_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    large = ["--event", "0.3,1,20", "--delta", "1e-5", "--accountant", "prv"]
    assert run(["epsilon", *large]) == 4
    assert "does not converge" in capsys.readouterr().err


def test_a_delta_beyond_the_accountants_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["epsilon", "--event", "4,0.00033,10000", "--delta", "1e-12"]) == 4
    assert "use a larger delta" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [0.1, 99.0])
def test_prv_that_contradicts_the_others_is_refused(
    wrong: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accounting, "prv_epsilon", lambda events, delta: wrong)
    assert run(["epsilon", *LORA]) == 4
    assert "disagree" in capsys.readouterr().err


def test_a_pld_that_is_no_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accounting, "pld_epsilon", lambda *_: math.nan)
    assert run(["epsilon", *LORA]) == 4
    assert "disagree" in capsys.readouterr().err
