"""Prometheus's own parser reads the metrics of both sides, and its rules raise the alerts."""

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cloister.dashboard.sources import open_source
from cloister.errors import RefusedError
from tests.support.dashboards import NOW, coordinator_folder, site_folder

ROOT = Path(__file__).parents[2]
LABELS = {"site", "outcome", "reason", "run", "le"}  # le: of a histogram's buckets
EPSILON_OF = {"unit", "neighbouring", "delta", "accountant", "against", "basis"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coordinator_folder(tmp_path_factory.mktemp("desk")).path


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site_folder(tmp_path_factory.mktemp("site") / "ward").path


def scraped(path: Path) -> dict[str, Metric]:
    made = open_source(path, {}).metrics
    assert made is not None
    text = made(NOW + timedelta(seconds=30)).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def test_a_coordinator_counts_rounds_updates_and_bytes(desk: Path) -> None:
    found = scraped(desk)
    assert value(found, "cloister_up") == 0
    assert value(found, "cloister_round_current", run="triage-2") == 12
    assert value(found, "cloister_rounds_total", run="triage-2", outcome="closed") == 12
    on = {"run": "triage-2", "site": "riverside"}
    assert value(found, "cloister_updates_total", **on, outcome="late") == 1
    assert value(found, "cloister_updates_total", **on, outcome="refused") == 1
    assert value(found, "cloister_updates_total", **on, outcome="accepted") == 11
    received = {"run": "pilot", "outcome": "received"}
    assert value(found, "cloister_update_bytes_total", **received) == 3 * 3 * 28_031
    assert value(found, "cloister_run_standing", run="pilot", outcome="finished") == 1
    assert value(found, "cloister_round_duration_seconds_count", run="triage-2") == 12
    assert value(found, "cloister_round_duration_seconds_bucket", run="triage-2", le="60.0") == 0
    assert value(found, "cloister_round_duration_seconds_bucket", run="triage-2", le="300.0") == 12
    assert value(found, "cloister_site_up", site="st-marys") == 1
    seen = value(found, "cloister_site_last_seen_timestamp_seconds", site="county-general")
    assert seen == NOW.timestamp()
    assert value(found, "cloister_cert_expiry_timestamp_seconds") > NOW.timestamp()


def test_a_site_states_its_own_epsilon(ward: Path) -> None:
    found, site = scraped(ward), {"site": "st-marys"}
    promised, spent, cap = (
        found[f"cloister_epsilon_{name}"].samples[0] for name in ("promised", "spent", "cap")
    )
    assert 0 < spent.value < promised.value == cap.value == 8  # its data set was in two studies
    for sample, basis in ((promised, "lifetime-budget"), (spent, "spent-so-far")):
        assert sample.labels.keys() == cap.labels.keys() == {"site", *EPSILON_OF}
        assert sample.labels["basis"] == basis
    assert 2 * float(spent.labels["delta"]) == float(cap.labels["delta"])
    assert value(found, "cloister_budget_rounds_left", **site) > 0
    assert value(found, "cloister_updates_total", **site, outcome="released") == 9
    assert value(found, "cloister_updates_total", **site, outcome="cut_off") == 1
    assert value(found, "cloister_update_bytes_total", **site, outcome="sent") == 9 * 28_031
    assert value(found, "cloister_ledger_entries_total", **site) == 1 + 10 + 9
    assert value(found, "cloister_ledger_verify_failures_total", **site) == 0
    assert value(found, "cloister_policy_refusals", **site, reason="policy") == 2


def test_no_epsilon_and_no_other_label_at_the_coordinator(desk: Path, ward: Path) -> None:
    ours, theirs = scraped(desk), scraped(ward)
    assert not [name for name in ours if "epsilon" in name or "budget" in name]
    for family in (*ours.values(), *theirs.values()):
        assert family.name.startswith("cloister_")
        for sample in family.samples:
            known = LABELS | (EPSILON_OF if "epsilon" in family.name else set())
            assert sample.labels.keys() <= known, family.name


def test_counters_are_counters(desk: Path, ward: Path) -> None:
    for family in (*scraped(desk).values(), *scraped(ward).values()):
        is_total = any(sample.name.endswith("_total") for sample in family.samples)
        assert is_total == (family.type == "counter"), family.name


def test_a_ledger_that_is_not_sound_is_counted(ward: Path, tmp_path: Path) -> None:
    shutil.copytree(ward.parent, tmp_path / "ward")
    made = open_source(tmp_path / "ward" / "site.toml", {}).metrics
    assert made is not None
    ledger = tmp_path / "ward" / "s.ledger"
    ledger.write_bytes(ledger.read_bytes().replace(b'"round":1', b'"round":9'))
    for times in (1, 2):
        families = text_string_to_metric_families(made(NOW).decode())
        assert [s.value for f in families for s in f.samples] == [times]


def test_a_refusal_of_an_unknown_kind_has_a_bounded_label(ward: Path, tmp_path: Path) -> None:
    from cloister.client.site_file import read_site
    from cloister.deployment.site.agent_folder import AgentFolder

    shutil.copytree(ward.parent, tmp_path / "ward")
    folder = AgentFolder.of(read_site(tmp_path / "ward" / "site.toml"))
    folder.note_refusal(type("Odd", (RefusedError,), {})("x"), "study", 1)
    found = scraped(tmp_path / "ward" / "site.toml")
    assert value(found, "cloister_policy_refusals", site="st-marys", reason="other") == 1


def test_alerts_name_metrics_that_exist(desk: Path, ward: Path) -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(every) >= 6
    used = set(re.findall(r"cloister_\w+", json.dumps([rule["expr"] for rule in every])))
    made = {
        sample.name
        for found in (scraped(desk), scraped(ward))
        for family in found.values()
        for sample in family.samples
    }
    # Of a running service and of a member alone, which need processes and papers.
    made |= {"cloister_process_starts_total"}
    assert used <= made, used - made
    for rule in every:
        assert rule["alert"].startswith("Cloister")
        assert rule["annotations"]["summary"]
