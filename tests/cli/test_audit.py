"""`cloister audit run` prints figures with limits, and fails if one is outside."""

import importlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloister.audit.canaries import audit_run
from cloister.audit.frozen_step import audit_step
from cloister.cli.main import run
from cloister.privacy import mechanism
from cloister.privacy.noise import add_noise
from tests.support.entropy import seeded
from tests.support.quick_audit import quick_audit
from tests.support.studies import small_assignments


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    values = [*small_assignments(tmp_path / "study"), "privacy.max_grad_norm=0.5"]
    return [a for value in values for a in ("--set", value)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_audit(monkeypatch)


def measured_once(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Has functions of `cloister.audit` return what their first call found, each time."""
    for name in names:
        module, _, function = name.rpartition(".")
        real, found = getattr(importlib.import_module(f"cloister.audit.{module}"), function), []

        def call(*given: Any, real: Any = real, found: list[Any] = found) -> Any:
            if not found:
                found.append(real(*given))
            return found[0]

        patch.setattr(f"cloister.audit.{name}", call)


def test_a_sound_path_is_not_refuted_and_nothing_is_called_verified(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The training path is sound in tests/audit/test_conformance.py.
    monkeypatch.setattr("cloister.audit.conformance.path_parts", lambda *_: {})
    measured_once(
        monkeypatch,
        "conformance.conformance",
        "site_noise.site_noise",
        "site_answers.answer_checks",
    )
    assert run(["audit", "run", *options]) == 0
    told = capsys.readouterr().out
    assert "not refuted" in told
    assert "at most once in 100,000 runs; passing proves nothing" in " ".join(told.split())
    assert "verified" not in told
    assert run(["audit", "run", *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["refuted"] is False
    assert {"influence", "noise scale", "sampling rate", "answer bytes"} <= {
        check["name"] for check in document["checks"]
    }


def test_a_broken_path_is_refuted_loudly(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (  # whose tests are theirs
        "site_noise.site_noise",
        "site_answers.answer_checks",
        "conformance.clipping_checks",
        "conformance.mechanism_sampler",
    ):
        monkeypatch.setattr(f"cloister.audit.{name}", lambda *_: [])
    monkeypatch.setattr("cloister.audit.conformance.path_parts", lambda *_: {})
    monkeypatch.setattr(mechanism, "add_noise", lambda c, s, e: add_noise(c, s / 2, e))
    assert run(["audit", "run", *options]) == 1
    captured = capsys.readouterr()
    assert "REFUTED" in captured.out
    assert "REFUTED: " in captured.err
    assert "noise scale" in captured.err


def test_what_cannot_be_audited_is_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "run", *options, "--set", "privacy.enabled=false"]) == 2
    assert "nothing to audit" in capsys.readouterr().err
    assert run(["audit", "run", "none.toml"]) == 3
    assert run(["audit", "run", "--level", "astrology"]) == 2


def test_an_attack_bounds_epsilon_from_below(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = ["audit", "run", *options, "--level", "empirical", "--trials", "500"]
    measured_once(monkeypatch, "attacks.illustration")
    # The draws come again in each run: with others each attack accuses a sound study, once in a
    # thousand runs at most.
    for name, made in (
        ("audit_step", partial(audit_step, make_entropy=seeded)),
        ("audit_run", partial(audit_run, make_entropy=seeded, coins=seeded(1))),
    ):
        monkeypatch.setattr(f"cloister.audit.attacks.{name}", made)
    with monkeypatch.context() as patch:
        measured_once(patch, "attacks.attacks")
        assert run(attack) == 0
        told = capsys.readouterr().out
        assert "ε lower bound" in told
        assert "not refuted" in told
        assert run([*attack, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [attack["attack"] for attack in document["attacks"]]
    assert names == [
        "one step, frozen",
        "one run with gradient canaries",
        "one run of canaries alone",
    ]
    for found in document["attacks"]:
        assert 0 <= found["epsilon_lower_bound"] <= found["epsilon_claimed"]
        assert found["refuted"] is False
    (shown,) = document["illustrations"]
    assert "weak" in shown["attack"]
    # A third of the noise was once not refuted by 500 trials; with a sixth no such draw is likely.
    monkeypatch.setattr(mechanism, "add_noise", lambda c, s, e: add_noise(c, s / 6, e))
    assert run(attack) == 1
    assert "REFUTED" in capsys.readouterr().err
