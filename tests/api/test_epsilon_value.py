"""`cloister.epsilon` gives ε with δ, unit, accountant and adversary, as other accountants do."""

import json
import math

import numpy as np
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


def test_numbers_of_numpy_are_taken() -> None:
    one = cl.epsilon(noise_multiplier=np.float64(1.1), sample_rate=np.float64(0.02), steps=3)
    assert one == cl.epsilon(noise_multiplier=1.1, sample_rate=0.02, steps=3)


def test_noise_that_is_none_in_floats_protects_nobody() -> None:
    assert cl.epsilon(noise_multiplier=1e-300, sample_rate=0.1, steps=1).epsilon == math.inf


def test_a_delta_that_needs_no_epsilon_gives_zero() -> None:
    assert float(cl.epsilon(noise_multiplier=1.0, sample_rate=0.1, steps=10, delta=0.9)) == 0.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give all three, or events"),
        ({"steps": 3}, "give all three, or events"),
        ({**STEPS, "delta": 0.0}, "delta: 0.0 given"),
        ({**STEPS, "sample_rate": 1.5}, "sample rate: 1.5 given"),
        ({**STEPS, "noise_multiplier": -1.0}, "noise multiplier: -1.0 given"),
        ({**STEPS, "steps": 2.5}, "steps: 2.5 given"),
        ({**STEPS, "steps": math.inf}, "steps: inf given"),
        ({**STEPS, "steps": math.nan}, "steps: nan given"),
        ({**STEPS, "noise_multiplier": "1.1"}, "noise multiplier: '1.1' given"),
        ({**STEPS, "noise_multiplier": math.nan}, "noise multiplier: nan given"),
        ({**STEPS, "sample_rate": True}, "sample rate: True given"),
        ({**STEPS, "delta": "1e-5"}, "delta: '1e-5' given"),
        ({**STEPS, "unit": ["person"]}, "unit: "),
        ({"events": [(1.1, 0.02)]}, "events: "),
        ({"events": 3}, "events: 3 given"),
        ({**STEPS, "unit": "site"}, "unit: 'site' given"),
        ({**STEPS, "accountant": "guess"}, "accountant: 'guess' given"),
    ],
)
def test_wrong_values_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cl.epsilon(**arguments)  # type: ignore[arg-type]
