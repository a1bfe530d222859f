"""The service loads what a registry promotes, and keeps its model if that fails."""

import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cloister.cli.main import run
from cloister.errors import LedgerError
from cloister.registry.registry import open_registry
from cloister.service.versions import Served, open_promoted, open_version
from cloister.serving.model import load
from cloister.tasks.config import TaskConfig
from tests.service.test_process import said, serving
from tests.support.released import exported

NOW = datetime(2026, 11, 29, tzinfo=UTC)
TEXTS = ["chest pain", "fever"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> list[Path]:
    place = tmp_path_factory.mktemp("adapters")
    task = TaskConfig(labels=("x", "y"), max_length=12)
    return [exported(place / str(seed), bert, task, seed) for seed in range(2)]


def test_an_exchange_takes_what_is_promoted_then(tmp_path: Path, adapters: list[Path]) -> None:
    registry = open_registry(tmp_path)
    first = registry.promote(adapters[0], "triage", NOW, by="ann")
    served = Served(lambda: open_promoted(str(tmp_path), "triage", "production", "cpu", None))
    assert served.current.name == "triage"
    assert first.version.startswith(served.current.digest)
    assert served.current.model.predict(TEXTS) == load(adapters[0]).predict(TEXTS)
    second = registry.promote(adapters[1], "triage", NOW, by="ann")
    assert first.version.startswith(served.current.digest)  # until it is told
    served.exchange()
    assert second.version.startswith(served.current.digest)
    assert served.current.model.predict(TEXTS) == load(adapters[1]).predict(TEXTS)
    registry.rollback("triage", NOW, by="ann")
    (tmp_path / "versions" / first.version / "adapter" / "head.safetensors").write_bytes(b"other")
    with pytest.raises(LedgerError, match="not those that were promoted"):
        served.exchange()
    assert second.version.startswith(served.current.digest)


def test_a_site_s_own_adapter_is_known_by_any_path(
    tmp_path: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "run" / "personal" / "east"
    shutil.copytree(adapters[0], own)
    (tmp_path / "link").symlink_to(own)
    monkeypatch.chdir(own)
    for place in (own, tmp_path / "link", Path()):
        assert open_version(place, "cpu", None).is_personal
    assert not open_version(adapters[0], "cpu", None).is_personal


def test_a_registry_without_the_model_is_said_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (["--registry", str(tmp_path)], "give both or none"),
        (["--model", "triage"], "give both or none"),
        ([], "give either RUN_OR_ADAPTER"),
        ([str(tmp_path), "--registry", str(tmp_path), "--model", "triage"], "give either"),
        (["--registry", str(tmp_path), "--model", "triage"], "no such model"),
    ]
    for options, told in cases:
        assert run(["serve", "--port", "0", *options]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.nightly
def test_a_process_takes_over_on_sighup(tmp_path: Path, adapters: list[Path]) -> None:
    registry = open_registry(tmp_path)
    registry.promote(adapters[0], "triage", NOW, by="ann")
    with serving("--registry", str(tmp_path), "--model", "triage") as (process, address):
        assert (
            httpx.get(f"{address}/v1/models", trust_env=False).json()["data"][0]["id"] == "triage"
        )
        second = registry.promote(adapters[1], "triage", NOW, by="ann")
        process.send_signal(signal.SIGHUP)
        assert second.version[:12] in said(process, "serves version")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
