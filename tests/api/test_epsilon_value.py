"""`cloister.epsilon`: one number with all that it is of, held to other accountants' own."""

import json

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant

import cloister as cl
from cloister.cli.main import run
from cloister.errors import UsageError

STEPS = {"noise_multiplier": 1.1, "sample_rate": 0.02, "steps": 1000}


def test_it_is_dp_accounting_s_value_and_the_command_s(capsys: pytest.CaptureFixture[str]) -> None:
    found = cl.epsilon(**STEPS, delta=1e-5)  # type: ignore[arg-type]
    accountant = pld_privacy_accountant.PLDAccountant()
    step = dp_event.PoissonSampledDpEvent(0.02, dp_event.GaussianDpEvent(1.1))
    accountant.compose(dp_event.SelfComposedDpEvent(step, 1000))
    # Both are pessimistic on grids of their own: 1e-4 and finer, over a thousand steps.
    assert float(found) == pytest.approx(accountant.get_epsilon(1e-5), rel=2e-3)
    options = ["--noise-multiplier", "1.1", "--sample-rate", "0.02", "--steps", "1000"]
    assert run(["epsilon", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_json()
    assert run(["epsilon", *options]) == 0
    assert capsys.readouterr().out == f"{found}\n"


def test_it_says_what_it_is_of() -> None:
    found = cl.epsilon(**STEPS, delta=1e-6, unit="person", accountant="rdp")  # type: ignore[arg-type]
    for word in ("δ = 1e-06", "one person added or removed", "by RDP", "whoever sees every step"):
        assert word in str(found)
    assert (found.unit, found.neighbouring, found.accountant) == ("person", "add-remove", "rdp")
    assert float(found) > float(cl.epsilon(**STEPS, delta=1e-6))  # type: ignore[arg-type]


def test_steps_of_several_kinds_compose() -> None:
    once = (1.1, 0.02, 1000)
    twice = cl.epsilon(events=[once, once])
    assert float(twice) == float(cl.epsilon(noise_multiplier=1.1, sample_rate=0.02, steps=2000))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give all three, or events"),
        ({"steps": 3}, "give all three, or events"),
        ({**STEPS, "delta": 0.0}, "delta: 0.0 given"),
        ({**STEPS, "sample_rate": 1.5}, "sample rate: 1.5 given"),
        ({**STEPS, "noise_multiplier": -1.0}, "noise multiplier: -1.0 given"),
        ({**STEPS, "steps": 2.5}, "steps: 2.5 given"),
        ({**STEPS, "unit": "site"}, "unit: 'site' given"),
        ({**STEPS, "accountant": "guess"}, "accountant: 'guess' given"),
    ],
)
def test_wrong_values_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cl.epsilon(**arguments)  # type: ignore[arg-type]
