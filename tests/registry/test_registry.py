"""A registry keeps versions by hash; one of two promotions wins; nothing is incomplete."""

import dataclasses
import errno
import json
import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.errors import BadFileError, LedgerError, RefusedError, UsageError
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.ledger.signing import public_hex
from cloister.registry.difference import difference
from cloister.registry.registry import Registry, open_registry
from cloister.registry.rule import PromotionRule, read_rule, write_rule
from cloister.registry.store import FolderStore, RemoteStore
from cloister.tasks.config import TaskConfig
from tests.support.released import exported
from tests.support.studies import small_recipe

NOW = datetime(2026, 11, 29, tzinfo=UTC)
TASK = TaskConfig(labels=("x", "y"), max_length=12)
PEOPLE = {name: Ed25519PrivateKey.generate() for name in ("ann", "bo", "cy")}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> list[Path]:
    """Three adapters of one base."""
    place = tmp_path_factory.mktemp("adapters")
    return [exported(place / str(seed), bert, TASK, seed) for seed in range(3)]


@pytest.fixture(params=["folder", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """One in a folder, and one at an fsspec URL."""
    if request.param == "folder":
        return open_registry(tmp_path / "registry")
    fsspec.filesystem("memory").store.clear()
    return open_registry(f"memory://{tmp_path.name}")


def sha256(folder: Path) -> str:
    return adapter_sha256(adapter_files(folder))


def two_people(registry: Registry) -> None:
    keys = {name: public_hex(key) for name, key in PEOPLE.items() if name != "cy"}
    write_rule(registry.store, PromotionRule(2, keys))


def test_a_version_is_its_files_and_comes_back_as_they_were(
    registry: Registry, adapters: list[Path]
) -> None:
    said = registry.promote(adapters[0], "triage", NOW, by="ann")
    assert said.is_served
    assert said.version == sha256(adapters[0]) == registry.current("triage")
    with registry.fetched(said.version) as folder:
        assert adapter_files(folder) == adapter_files(adapters[0])
    assert not folder.exists()
    assert registry.models() == ["triage"]
    assert registry.lineage(said.version)["labels"] == ["x", "y"]


def test_a_rollback_is_another_entry(registry: Registry, adapters: list[Path]) -> None:
    for adapter in adapters:
        registry.promote(adapter, "triage", NOW, by="ann")
    assert registry.current("triage") == sha256(adapters[2])
    said = registry.rollback("triage", NOW, by="bo")
    assert said.version == registry.current("triage") == sha256(adapters[1])
    kinds = [one.entry.kind for one in registry.log("triage")]
    assert kinds == ["promote"] * 3 + ["rollback"]
    chain = [one.entry.previous for one in registry.log("triage")]
    assert chain[1:] == [one.sha256 for one in registry.log("triage")][:-1]


def test_stages_are_apart(registry: Registry, adapters: list[Path]) -> None:
    registry.promote(adapters[0], "triage", NOW, by="ann", stage="staging")
    with pytest.raises(UsageError, match="nothing is served at production"):
        registry.current("triage")
    registry.promote(adapters[0], "triage", NOW, by="ann")
    registry.promote(adapters[1], "triage", NOW, by="ann", stage="staging")
    assert registry.current("triage") == sha256(adapters[0])
    assert registry.current("triage", "staging") == sha256(adapters[1])


def test_two_people_must_promote(registry: Registry, adapters: list[Path]) -> None:
    two_people(registry)
    first = registry.promote(adapters[0], "triage", NOW, by="ann", key=PEOPLE["ann"])
    assert not first.is_served
    with pytest.raises(UsageError, match=r"was promoted by ann, and 2 people must"):
        registry.current("triage")
    with pytest.raises(UsageError, match=r"ann promoted version .* already; 2 different people"):
        registry.promote(adapters[0], "triage", NOW, by="ann", key=PEOPLE["ann"])
    assert registry.promote(adapters[0], "triage", NOW, by="bo", key=PEOPLE["bo"]).is_served
    # Another version begins again, and a rollback takes two as well.
    registry.promote(adapters[1], "triage", NOW, by="ann", key=PEOPLE["ann"])
    registry.promote(adapters[2], "triage", NOW, by="bo", key=PEOPLE["bo"])
    assert registry.current("triage") == sha256(adapters[0])
    registry.promote(adapters[2], "triage", NOW, by="ann", key=PEOPLE["ann"])
    assert registry.current("triage") == sha256(adapters[2])
    assert not registry.rollback("triage", NOW, by="ann", key=PEOPLE["ann"]).is_served
    assert registry.rollback("triage", NOW, by="bo", key=PEOPLE["bo"]).is_served
    assert registry.current("triage") == sha256(adapters[0])


def test_nobody_promotes_for_another(registry: Registry, adapters: list[Path]) -> None:
    two_people(registry)
    for by, key in (("cy", PEOPLE["cy"]), ("ann", PEOPLE["bo"]), ("cy", PEOPLE["ann"])):
        with pytest.raises(RefusedError, match="the approvers are ann, bo"):
            registry.promote(adapters[0], "triage", NOW, by=by, key=key)
    with pytest.raises(UsageError, match="only promotions that an approver signed"):
        registry.promote(adapters[0], "triage", NOW, by="ann")
    with pytest.raises(RefusedError, match="the approvers are ann, bo"):
        registry.rollback("triage", NOW, by="cy", key=PEOPLE["cy"])
    registry.promote(adapters[0], "triage", NOW, by="ann", key=PEOPLE["ann"])
    # An entry that somebody writes past the command counts only with the person's signature.
    [own] = registry.log("triage")
    forged = dataclasses.asdict(own.entry) | {"number": 2, "previous": own.sha256, "by": "bo"}
    for signature in ("", own.signature, "ab" * 64, "zz" * 64):
        content = json.dumps({"body": forged, "signature": signature}).encode()
        registry.store.write("models/triage/log/000002.json", content)
        with pytest.raises(UsageError, match="nothing is served"):
            registry.current("triage")


def test_a_changed_log_is_no_log(registry: Registry, adapters: list[Path]) -> None:
    for adapter in adapters:
        registry.promote(adapter, "triage", NOW, by="ann")
    place = "models/triage/log/000001.json"
    content = registry.store.read(place)
    assert content is not None
    for odd in (content.replace(b"ann", b"bob"), content[:-20], b"[]", b""):
        registry.store.write(place, odd)
        with pytest.raises(LedgerError, match=r"entry [12] of triage.*restore it"):
            registry.current("triage")
    registry.store.write(place, content)
    assert registry.current("triage") == sha256(adapters[2])


def test_a_log_that_lost_its_end_is_no_log(registry: Registry, adapters: list[Path]) -> None:
    """Entries before it are chained as ever: without its head, an older version would be served."""
    for adapter in adapters:
        registry.promote(adapter, "triage", NOW, by="ann")
    last, head = "models/triage/log/000003.json", "models/triage/head.json"
    kept, named = registry.store.read(last), registry.store.read(head)
    assert kept is not None
    assert named is not None
    _remove(registry, last)
    with pytest.raises(LedgerError, match="has 2 entries, and lacks the entry 3"):
        registry.current("triage")
    registry.store.write(last, kept)
    registry.store.write(head, b"{}")
    with pytest.raises(LedgerError, match=r"head\.json: damaged"):
        registry.current("triage")
    # Of an older version, which wrote no head; and one that lags behind by an entry.
    _remove(registry, head)
    assert registry.current("triage") == sha256(adapters[2])
    registry.rollback("triage", NOW, by="ann")
    registry.store.write(head, named)
    assert registry.current("triage") == sha256(adapters[1])


def _remove(registry: Registry, path: str) -> None:
    store = registry.store
    if isinstance(store, FolderStore):
        (store.root / path).unlink()
    else:
        assert isinstance(store, RemoteStore)
        store.files.rm(f"{store.root}/{path}")


def test_another_model_s_log_promotes_nothing(registry: Registry, adapters: list[Path]) -> None:
    """Its signatures are good, and are about the other one."""
    two_people(registry)
    for by in ("ann", "bo"):
        registry.promote(adapters[0], "demo", NOW, by=by, key=PEOPLE[by])
    for name in ("000001.json", "000002.json"):
        content = registry.store.read(f"models/demo/log/{name}")
        assert content is not None
        registry.store.write(f"models/triage/log/{name}", content)
    with pytest.raises(LedgerError, match="entry 1 of triage: not chained"):
        registry.current("triage")


def test_changed_files_are_not_loaded(registry: Registry, adapters: list[Path]) -> None:
    said = registry.promote(adapters[0], "triage", NOW, by="ann")
    registry.store.write(f"versions/{said.version}/adapter/head.safetensors", b"another")
    with (
        pytest.raises(LedgerError, match="not those that were promoted"),
        registry.fetched(said.version),
    ):
        pass


def test_of_two_at_once_one_wins_and_the_other_is_told(
    tmp_path: Path, adapters: list[Path]
) -> None:
    registry = open_registry(tmp_path)
    registry.promote(adapters[0], "triage", NOW, by="ann")
    read = registry.store.read
    both = threading.Barrier(2)
    told: list[str] = []

    class Meeting(FolderStore):
        """Both have read the log before either writes to it."""

        def create(self, path: str, content: bytes) -> bool:
            both.wait(timeout=60)
            return super().create(path, content)

    def promote(adapter: Path) -> None:
        try:
            Registry(Meeting(tmp_path), "here").promote(adapter, "triage", NOW, by="bo")
            told.append("done")
        except UsageError as error:
            told.append(str(error))

    threads = [threading.Thread(target=promote, args=(one,)) for one in adapters[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one == "done" for one in told) == [False, True]
    assert any("another person promoted or rolled back meanwhile" in one for one in told)
    assert len(registry.log("triage")) == 2
    assert read("models/triage/log/000003.json") is None


@pytest.mark.parametrize("call", ["open", "fsync", "link"])
@pytest.mark.parametrize("at", [1, 3, 5, 99])
def test_a_full_disk_or_a_kill_loses_nothing(
    tmp_path: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    registry = open_registry(tmp_path / "registry")
    registry.promote(adapters[0], "triage", NOW, by="ann")
    real, calls = getattr(os, call), 0

    def full(*given: Any, **named: Any) -> Any:
        nonlocal calls
        reads = call == "open" and not given[1] & os.O_CREAT
        calls += not reads
        if calls >= at and not reads:
            raise OSError(errno.ENOSPC, "No space left on device", str(given[0]))
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        said = None
        try:
            registry.promote(adapters[1], "triage", NOW, by="ann")
        except BadFileError as error:
            said = str(error)
    served = registry.current("triage")
    with registry.fetched(served):
        assert served == sha256(adapters[1] if said is None else adapters[0])
    assert said is None or "No space left" in said
    leftovers = [path for path in (tmp_path / "registry").rglob(".*") if path.is_file()]
    assert leftovers == []
    if said is not None:
        assert registry.promote(adapters[1], "triage", NOW, by="ann").is_served


def test_a_first_promotion_that_fails_leaves_no_model(
    tmp_path: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = open_registry(tmp_path / "registry")
    registry.promote(adapters[0], "triage", NOW, by="ann")
    real = os.link

    def full(old: Any, new: Any, **named: Any) -> None:
        if "second" in str(new):
            raise OSError(errno.ENOSPC, "No space left on device", str(new))
        real(old, new, **named)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(BadFileError, match="make room there and try again"):
        registry.promote(adapters[1], "second", NOW, by="ann")
    assert registry.models() == ["triage"]


def test_a_version_that_was_cut_off_is_written_again(tmp_path: Path, adapters: list[Path]) -> None:
    registry = open_registry(tmp_path)
    place = tmp_path / "versions" / sha256(adapters[0])
    (place / "adapter").mkdir(parents=True)
    (place / "adapter" / "head.safetensors").write_bytes(b"half")
    registry.promote(adapters[0], "triage", NOW, by="ann")
    with registry.fetched(registry.current("triage")):
        pass
    shutil.rmtree(place)
    with pytest.raises(BadFileError, match="promote its run again"):
        registry.lineage(registry.current("triage"))


def test_an_entry_of_odd_values_is_damage(tmp_path: Path, adapters: list[Path]) -> None:
    registry = open_registry(tmp_path)
    registry.promote(adapters[0], "triage", NOW, by="ann")
    [own] = registry.log("triage")
    for odd in ({"version": 5}, {"version": "../../x"}, {"by": ["ann"]}, {"stage": {}}, {"at": 1}):
        body = dataclasses.asdict(own.entry) | odd
        content = json.dumps({"body": body, "signature": ""}).encode()
        registry.store.write("models/triage/log/000001.json", content)
        with pytest.raises(LedgerError, match="entry 1 of triage: not of an entry's form"):
            registry.current("triage")


def test_without_its_rule_nobody_promotes_alone_what_two_had_to(
    registry: Registry, adapters: list[Path]
) -> None:
    two_people(registry)
    registry.promote(adapters[0], "triage", NOW, by="ann", key=PEOPLE["ann"])
    rule = registry.store.read("registry.json")
    assert rule is not None
    empty = json.dumps({"version": 1, "needs": 1, "approvers": {}}).encode()
    registry.store.write("registry.json", empty)
    with pytest.raises(LedgerError, match=r"restore registry\.json"):
        registry.current("triage")
    with pytest.raises(LedgerError, match=r"restore registry\.json"):
        registry.promote(adapters[1], "triage", NOW, by="cy")
    registry.store.write("registry.json", rule)
    assert registry.promote(adapters[0], "triage", NOW, by="bo", key=PEOPLE["bo"]).is_served


def run_of(folder: Path, finished: Path, epsilon: float, **stated: str) -> Path:
    """A finished run of an adapter, with a certificate."""
    recipe = small_recipe(folder)
    shutil.copytree(finished, folder / "adapter")
    (folder / "recipe.toml").write_text(recipe.to_toml())
    (folder / "certificates").mkdir()
    fields = {"site": "east", "adapter": sha256(finished), "study": recipe.digest()} | stated
    body = json.dumps({**fields, "promise": {"epsilon": epsilon}, "ledger": {}})
    certificate = json.dumps({"body": body, "signature": ""})
    (folder / "certificates" / "east.certificate.json").write_text(certificate)
    return folder


def test_a_version_has_the_epsilon_of_its_own_certificates(
    tmp_path: Path, adapters: list[Path]
) -> None:
    registry = open_registry(tmp_path / "registry")
    for name, other in {"adapter": "0" * 64, "study": "1" * 64}.items():
        run = run_of(tmp_path / name, adapters[0], 1.0, **{name: other})
        with pytest.raises(BadFileError, match="that of east is for another adapter or study"):
            registry.promote(run, "triage", NOW, by="ann")
    assert registry.models() == []
    unseen = run_of(tmp_path / "unseen", adapters[0], 8.0, adapter="")
    said = registry.promote(unseen, "triage", NOW, by="ann")
    assert registry.lineage(said.version)["promises"] == {"east": {"epsilon": 8.0}}


def test_who_promotes_second_vouches_for_the_same_epsilon(
    tmp_path: Path, adapters: list[Path]
) -> None:
    registry = open_registry(tmp_path / "registry")
    two_people(registry)
    # An adapter without its run says nothing; the run's lineage takes that one's place.
    registry.promote(adapters[0], "triage", NOW, by="ann", key=PEOPLE["ann"])
    run = run_of(tmp_path / "run", adapters[0], 8.0)
    place = f"versions/{sha256(adapters[0])}/lineage.json"
    registry.promote(run, "triage", NOW, by="ann", key=PEOPLE["ann"], stage="staging")
    lineage = registry.store.read(place)
    assert lineage is not None
    registry.store.write(place, lineage.replace(b'"epsilon": 8.0', b'"epsilon": 0.1'))
    with pytest.raises(LedgerError, match=r"another\s+study or another ε"):
        registry.promote(run, "triage", NOW, by="bo", key=PEOPLE["bo"])
    registry.store.write(place, lineage)
    assert registry.promote(run, "triage", NOW, by="bo", key=PEOPLE["bo"]).is_served
    assert registry.store.read(place) == lineage


def test_what_two_versions_differ_in(registry: Registry, adapters: list[Path]) -> None:
    for adapter in adapters[:2]:
        registry.promote(adapter, "triage", NOW, by="ann")
    first, second = (registry.lineage(sha256(adapter)) for adapter in adapters[:2])
    found = difference(first, second)
    assert set(found) == {"norms"}
    assert found["norms"]["weight"] == [first["norms"]["weight"], second["norms"]["weight"]]
    assert difference(first, first) == {}
    changed = {**first, "task": "scoring", "metrics": {"accuracy": 0.5}}
    changed["promises"] = {"east": {"epsilon": 8.0}}
    assert difference(first, changed) == {
        "model": {"task": ["sequence-classification", "scoring"]},
        "promises": {"east.epsilon": [None, 8.0]},
        "metrics": {"accuracy": [None, 0.5]},
    }


@pytest.mark.parametrize(
    ("needs", "people", "said"),
    [
        (2, {"ann": "ab" * 32}, "2 people must promote, but only 1 have keys"),
        (0, {}, "a number from 1"),
        (1, {"ann": "AB" * 32}, "64 lower-case hex digits"),
        (1, {"../ann": "ab" * 32}, "not a valid name"),
        (2, {"ann": "ab" * 32, "bo": "ab" * 32}, "two people have the same key"),
    ],
)
def test_a_rule_that_nobody_could_meet_or_one_could_alone_is_refused(
    tmp_path: Path, needs: int, people: dict[str, str], said: str
) -> None:
    store = open_registry(tmp_path).store
    with pytest.raises(UsageError, match=said):
        write_rule(store, PromotionRule(needs, people))
    store.write("registry.json", json.dumps({"version": 1, "needs": needs}).encode())
    with pytest.raises(BadFileError, match="says who may promote"):
        read_rule(store)


def test_names_and_places_that_are_none_are_named(tmp_path: Path, adapters: list[Path]) -> None:
    registry = open_registry(tmp_path / "registry")
    for name in ("../out", "a/b", ""):
        with pytest.raises(UsageError, match="model: "):
            registry.promote(adapters[0], name, NOW, by="ann")
    with pytest.raises(UsageError, match="no such model"):
        registry.current("triage")
    with pytest.raises(BadFileError, match="no adapter here"):
        registry.promote(tmp_path, "triage", NOW, by="ann")
    with pytest.raises(UsageError, match="fsspec does not open it"):
        open_registry("nowhere://bucket")
    registry.promote(adapters[0], "triage", NOW, by="ann")
    with pytest.raises(UsageError, match="served at production already"):
        registry.promote(adapters[0], "triage", NOW, by="ann")
    with pytest.raises(UsageError, match="no other version was served"):
        registry.rollback("triage", NOW, by="ann")
    with pytest.raises(UsageError, match="names 0 of"):
        registry.version("triage", "0000")


def test_a_file_is_no_registry_that_has_no_model_yet(tmp_path: Path) -> None:
    file = tmp_path / "models"
    file.write_bytes(b"")
    with pytest.raises(BadFileError, match="is a file, not a folder; give a folder"):
        open_registry(file)
