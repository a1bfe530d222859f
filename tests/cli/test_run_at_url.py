"""`cloister simulate --out URL` and `cloister fetch`, as they are typed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from cloister import Study
from cloister.api import simulating
from cloister.cli.display import Display
from cloister.cli.main import run
from cloister.cli.run_at_url import RunAtUrl
from cloister.errors import RefusedError, UsageError
from cloister.ledger.storage import LedgerFile
from cloister.server import run_directory
from cloister.server.report import RoundReport
from cloister.server.run_directory import RunDirectory
from cloister.simulation import ray_plan
from cloister.simulation.copies.files import COPIED, STAYS, is_copied, stays
from cloister.simulation.copies.place import RunPlace
from cloister.simulation.copies.remote import RunUrl
from cloister.simulation.run import Events, simulate
from tests.support.copied_runs import at_url
from tests.support.ray_here import RayHere
from tests.support.studies import small_assignments, small_recipe

# Everything that a run may keep: parts of adapters and optimizers at sites, figures, a run without
# privacy.
RICH = ("lora.train=b-kept", "training.optimizer=adamw", "tracking.tensorboard=true")
URL = "memory://hospital/clinics"


def sets(folder: Path, *more: str) -> list[str]:
    values = (*small_assignments(folder), *more)
    return [word for value in values for word in ("--set", value)]


class Made(NamedTuple):
    """A finished run at a URL, its folder, and a fetched copy."""

    study: Path
    work: Path
    here: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("at-url")
    found = Made(folder / "study", folder / "work", folder / "here")
    words = [*sets(found.study, *RICH), "--twin", "--work", str(found.work)]
    assert run(["simulate", *words, "--out", URL]) == 0
    assert run(["fetch", URL, str(found.here)]) == 0
    yield found
    fsspec.filesystem("memory").store.clear()


def paths_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_of_every_file_of_a_run_it_is_decided_whether_it_is_copied(made: Made) -> None:
    paths = paths_in(made.work)
    assert {path for path in paths if is_copied(path) == stays(path)} == set()
    assert {path for path in paths if is_copied(path)} == paths_in(made.here) - {"copy.json"}
    for kept in ("ledgers/*.key", "ledgers/*.personal/*", "personal/*/*", "twin/*/*"):
        assert any(Path(path).match(kept) for path in paths), kept


def test_of_every_file_that_the_folder_s_description_names_it_is_decided() -> None:
    text = (run_directory.__doc__ or "").partition("\n\n")[2]
    names = [line.split()[0] for line in text.splitlines() if line[:1].strip()]
    assert len(names) > 15
    decided = (*COPIED, *STAYS)
    here_only = {"copy.json"}  # in a copy alone
    for name in set(names) - here_only:
        assert any(
            pattern.startswith(name) or ("*" in name and pattern.endswith(name[1:]))
            for pattern in decided
        ), name


def test_the_url_has_the_run_and_no_secret(made: Made) -> None:
    there = at_url(URL)
    assert {*there} == {*paths_in(made.here), "manifest.json", "writer.json"} - {"copy.json"}
    keys = [path.read_bytes().strip() for path in (made.work / "ledgers").glob("*.key")]
    kept = [path.read_bytes() for path in made.work.glob("ledgers/*.personal/*")]
    twin = (made.work / "twin" / "adapter" / "adapter_model.safetensors").read_bytes()
    whole = b"".join(there.values())
    assert len(keys) == 2
    assert len(kept) == 8
    assert not [secret for secret in (*keys, *kept, twin) if secret in whole]


def test_a_fetched_run_is_read_like_any_other(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = str(made.here)
    assert run(["ledger", "verify", f"{here}/ledgers/east.ledger"]) == 0
    assert run(["audit", "certificate", here]) == 0
    assert run(["audit", "report", here, "--out", str(tmp_path / "report")]) == 0
    bundle, keys = f"{here}/certificates/bundle.zip", f"{here}/certificates/keys.json"
    assert run(["audit", "verify", bundle, "--keys", keys]) == 0
    assert run(["compare", here]) == 0
    url, work, fetched = "memory://hospital/whole", tmp_path / "work", str(tmp_path / "fetched")
    words = [*sets(made.study), "--work", str(work), "--out", url]
    assert run(["simulate", *words]) == 0
    assert run(["fetch", url, fetched]) == 0
    capsys.readouterr()
    assert run(["evaluate", fetched, "--data", str(made.study / "test.jsonl"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    result = json.loads((work / "result.json").read_text())
    assert result["test"]["accuracy"] == scores["metrics"]["accuracy"]
    registry = str(tmp_path / "models")
    assert run(["model", "promote", fetched, "--as", "m", "--registry", registry]) == 0


def test_what_sites_share_of_their_adapters_is_no_model_and_one_site_s_own_adapter_is(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each site kept its B, at the run's machine: the result is the mean over their adapters."""
    test, registry = str(made.study / "test.jsonl"), str(tmp_path / "models")
    for place in (str(made.here), str(made.work)):
        for words in (
            ["evaluate", place, "--data", test],
            ["model", "promote", place, "--as", "m", "--registry", registry],
        ):
            capsys.readouterr()
            assert run(words) == 2
            assert "personal/SITE" in capsys.readouterr().err
    own = []
    for site in ("east", "west"):
        words = ["evaluate", str(made.work / "personal" / site), "--data", test, "--json"]
        assert run(words) == 0
        own.append(json.loads(capsys.readouterr().out)["metrics"]["accuracy"])
    result = json.loads((made.work / "result.json").read_text())
    assert result["test"]["accuracy"] == pytest.approx(sum(own) / 2, abs=1e-9)


def test_no_study_goes_on_in_a_fetched_run(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", "--resume", "--out", str(made.here)]) == 4
    told = capsys.readouterr().err
    assert "a copy that was fetched from a URL" in told
    out = tmp_path / "next"
    words = ["--from", str(made.here), "--out", str(out)]
    assert run(["simulate", *sets(made.study, *RICH), *words]) == 4
    assert "a copy that was fetched from a URL" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(RefusedError, match="a copy that was fetched from a URL"):
        simulating.simulate(Study(), out=out, from_run=made.here)
    assert not out.exists()
    (made.here / "certificates" / "bundle.zip").rename(tmp_path / "bundle.zip")
    assert run(["audit", "certificate", str(made.here)]) == 3
    assert "the sites' keys stay where the study ran" in capsys.readouterr().err
    (tmp_path / "bundle.zip").rename(made.here / "certificates" / "bundle.zip")


def test_a_run_is_interrupted_and_its_url_fails_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url, puts = "memory://hospital/unlucky", MemoryFileSystem.put_file

    def stop(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    def fail(*given: object, **named: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(MemoryFileSystem, "put_file", stop)
    words = [*sets(tmp_path / "study"), "--no-twin"]
    assert run(["simulate", *words, "--out", url]) == 1
    told = capsys.readouterr().err
    (folder,) = (tmp_path / "cache" / "cloister" / "runs").iterdir()
    assert f"works in {folder}" in told
    assert (
        f"1 rounds are saved in {folder}; continue with: cloister simulate --resume --out {url}"
        in told
    )

    monkeypatch.setattr(MemoryFileSystem, "put_file", fail)
    assert run(["simulate", "--resume", "--out", url, "--json"]) == 7
    told = capsys.readouterr()
    assert json.loads(told.out)["is_copied"] is False
    assert told.err.count("no route to host") == 2  # once in the run, once at its end
    assert "the copy is not complete (no route to host); nothing of it is there" in told.err
    assert (folder / "result.json").is_file()
    assert run(["fetch", url, str(tmp_path / "here")]) == 3

    monkeypatch.setattr(MemoryFileSystem, "put_file", puts)
    assert run(["simulate", "--resume", "--out", url]) == 0
    assert run(["fetch", url, str(tmp_path / "here"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["round"], facts["finished"]) == (2, True)
    assert [*RunDirectory(tmp_path / "here").ledgers()] == ["east", "west"]
    assert run(["predict", str(tmp_path / "here"), "--text", "chest pain"]) == 0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    assert run(["simulate", "--resume", "--out", url]) == 2
    told = capsys.readouterr().err
    assert "of another folder or machine" in told
    assert not (tmp_path / "another-machine").exists()


@pytest.mark.nightly  # the engine changes nothing that is copied; the local one's test is quicker
def test_a_run_on_nodes_of_ray_is_copied_by_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_plan, "PAYS", 1.0)
    recipe = small_recipe(tmp_path / "study", "data.sites=3", "data.partition=iid")
    nodes, threads = RayHere(monkeypatch, 2, 1), torch.get_num_threads()
    at = RunAtUrl.create(RunPlace.of("memory://hospital/ray", tmp_path / "work"), recipe)
    seen: list[int] = []

    def closed(report: RoundReport) -> None:
        manifest = RunUrl.open("memory://hospital/ray").manifest()
        seen.append(0 if manifest is None else manifest.round)

    try:
        simulate(recipe, at.run, "ray", Events(on_round=at.on_round(closed)), ray=nodes.places)
    finally:
        nodes.close()
        torch.set_num_threads(threads)
    assert at.finish(Display(recipe)) is None
    assert seen == [0, 1]
    assert run(["fetch", "memory://hospital/ray", str(tmp_path / "here")]) == 0
    here = RunDirectory(tmp_path / "here")
    assert {site: LedgerFile(path).entries() for site, path in here.ledgers().items()} == {
        site: LedgerFile(path).entries() for site, path in at.run.ledgers().items()
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", URL, "--seeds", "2"], "a URL given with --sweep, --seeds or --folds"),
        (["--work", "here"], "--work: given without a URL as --out"),
        (["--out", "here", "--work", "there"], "--work: given without a URL as --out"),
        (["--out", "memory://"], "names no folder"),
        (["--out", "nosuchkind://x/y"], "fsspec does not open it"),
        (["--out", "s3://bucket/run"], "fsspec does not open it (Install s3fs"),
    ],
)
def test_what_cannot_be_at_a_url_is_refused_in_one_message(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(["simulate", *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_fetch_needs_a_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", "runs/mine", str(tmp_path / "here")]) == 2
    assert "a URL is needed" in capsys.readouterr().err


def test_python_refuses_a_url_and_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cloister simulate RECIPE --out URL"):
        simulating.simulate(Study(), out=URL)
    with pytest.raises(UsageError, match="cloister simulate RECIPE --out URL"):
        simulating.resume(URL)
