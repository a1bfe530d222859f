"""A URL belongs to one folder of one machine, and a run is continued there only."""

import shutil
from pathlib import Path

import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from cloister.errors import BadFileError, LedgerError, NetworkError, RefusedError, UsageError
from cloister.owner_only import cache_folder
from cloister.registry.store import RemoteStore
from cloister.server.run_copy import COPY, URL_MARK
from cloister.server.run_directory import RunDirectory
from cloister.simulation.copies.fetching import fetch
from cloister.simulation.copies.manifest import CLAIM, MANIFEST
from cloister.simulation.copies.place import RunPlace
from cloister.simulation.copies.remote import RunUrl, shown_url
from cloister.simulation.ledgers import go_on
from cloister.simulation.run import simulate
from tests.support.copied_runs import RECIPE, at_url, begin_sites, close_round, copied, url_of


def say(text: str) -> None:
    raise AssertionError(text)


def test_a_url_has_a_folder_of_its_own_in_the_cache() -> None:
    one = RunPlace.of("memory://bucket/run", None)
    assert one.folder.parent == cache_folder("runs")
    assert one.folder.name.startswith("run-")
    assert one.folder == RunPlace.of("memory://bucket/run/", None).folder
    assert one.folder != RunPlace.of("memory://other/run", None).folder


def test_a_run_is_continued_in_its_own_folder(tmp_path: Path) -> None:
    run, _ = copied(tmp_path)
    close_round(run, 2)
    again, copy = RunPlace.of(url_of(tmp_path), run.path).reopen(say)
    assert again == run
    copy.after_round(2)
    assert fetch(url_of(tmp_path), tmp_path / "here").round == 2


def test_a_machine_without_the_folder_is_told_so_and_writes_nothing(tmp_path: Path) -> None:
    copied(tmp_path)
    before, elsewhere = at_url(url_of(tmp_path)), tmp_path / "elsewhere"
    place = RunPlace.of(url_of(tmp_path), elsewhere)
    for begin in (lambda: place.reopen(say), lambda: place.create(RECIPE)):
        with pytest.raises(UsageError, match="of another folder or machine") as error:
            begin()
        assert "not finished, 1 closed rounds" in str(error.value)
        assert f"cloister fetch {place.url.shown} FOLDER" in str(error.value)
    assert not elsewhere.exists()
    assert at_url(url_of(tmp_path)) == before


def test_another_folder_is_not_copied_to_the_url_although_it_holds_a_run(tmp_path: Path) -> None:
    copied(tmp_path)
    other = RunDirectory.create(tmp_path / "other", RECIPE)
    with pytest.raises(UsageError, match="of another folder or machine"):
        RunPlace.of(url_of(tmp_path), other.path).reopen(say)
    shutil.copy(tmp_path / "work" / URL_MARK, other.path)
    with pytest.raises(UsageError, match=r"is copied to .*, and not to"):
        RunPlace.of(url_of(tmp_path) + "2", other.path).reopen(say)


def test_an_older_copy_of_the_folder_is_refused(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    shutil.copytree(run.path, tmp_path / "backup")
    close_round(run, 2)
    copy.after_round(2)
    shutil.rmtree(run.path)
    (tmp_path / "backup").rename(run.path)
    with pytest.raises(LedgerError, match="missing or different now") as error:
        RunPlace.of(url_of(tmp_path), run.path).reopen(say)
    assert "the folder here is an older one" in error.value.__notes__[0]


@pytest.mark.parametrize("state", ["cut off", "of the round before"])
def test_an_older_folder_is_refused_by_ledgers_whose_manifest_never_came(
    tmp_path: Path, state: str
) -> None:
    """The machine fails while it copies, and its folder comes back from a backup."""
    run, copy = copied(tmp_path)
    shutil.copytree(run.path, tmp_path / "backup")
    before = at_url(url_of(tmp_path))[MANIFEST]
    close_round(run, 2)
    copy.after_round(2)
    manifest = before if state == "of the round before" else b'{"format": 1, "wri'
    copy.url.files.pipe_file(copy.url.path(MANIFEST), manifest)
    assert RunPlace.of(url_of(tmp_path), run.path).reopen(lambda text: None)[0] == run
    shutil.rmtree(run.path)
    (tmp_path / "backup").rename(run.path)
    with pytest.raises(LedgerError, match="missing or different now") as error:
        RunPlace.of(url_of(tmp_path), run.path).reopen(lambda text: None)
    assert "the folder here is an older one" in error.value.__notes__[0]


def test_a_new_run_does_not_take_the_place_of_one_with_rounds(tmp_path: Path) -> None:
    run, _ = copied(tmp_path)
    with pytest.raises(UsageError, match="holds this folder's run already; continue it"):
        RunPlace.of(url_of(tmp_path), run.path).create(RECIPE)
    assert [row["round"] for row in run.metrics()] == [1]


def test_a_first_try_that_charged_nothing_can_begin_again(tmp_path: Path) -> None:
    place = RunPlace.of(url_of(tmp_path), tmp_path / "work")
    run, _ = place.create(RECIPE)
    begin_sites(run)
    claim = at_url(url_of(tmp_path))
    again, copy = place.create(RECIPE)
    begin_sites(again)
    close_round(again, 1)
    copy.after_round(1)
    there = at_url(url_of(tmp_path))
    assert there[CLAIM] == claim[CLAIM]
    assert MANIFEST in there


def test_other_files_at_a_url_are_left_alone(tmp_path: Path) -> None:
    place = RunPlace.of(url_of(tmp_path), tmp_path / "work")
    place.url.files.pipe_file(place.url.path("thesis.txt"), b"years of work")
    with pytest.raises(UsageError, match=r"holds other files already \('thesis.txt'"):
        place.create(RECIPE)
    assert at_url(url_of(tmp_path)) == {"thesis.txt": b"years of work"}
    assert not (tmp_path / "work").exists()


def test_of_two_machines_that_begin_at_once_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(store: RemoteStore, path: str, content: bytes) -> bool:
        return False  # the other was first, after we had looked

    monkeypatch.setattr(RemoteStore, "create", late)
    with pytest.raises(UsageError, match="of another folder or machine"):
        RunPlace.of(url_of(tmp_path), tmp_path / "work").create(RECIPE)


def test_of_two_that_both_made_the_claim_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that looks and then writes, as fsspec's own for SFTP, lets both make it."""

    def overwritten(store: RemoteStore, path: str, content: bytes) -> bool:
        store.write(path, b'{"writer": "another"}')
        return True

    monkeypatch.setattr(RemoteStore, "create", overwritten)
    with pytest.raises(UsageError, match="of another folder or machine"):
        RunPlace.of(url_of(tmp_path), tmp_path / "work").create(RECIPE)


def test_on_a_share_one_of_two_alone_makes_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the other makes it after fsspec has looked."""
    place = RunPlace.of(f"file://{tmp_path}/share/run", tmp_path / "work")
    claim = tmp_path / "share" / "run" / CLAIM

    def made_after_the_look(_: object) -> None:
        claim.parent.mkdir(parents=True)
        claim.write_bytes(b'{"writer": "another"}')

    monkeypatch.setattr(RunPlace, "_check_empty", made_after_the_look)
    monkeypatch.setattr(LocalFileSystem, "exists", lambda files, path, **named: False)
    with pytest.raises(UsageError, match="of another folder or machine"):
        place.create(RECIPE)
    assert claim.read_bytes() == b'{"writer": "another"}'


def test_a_run_that_began_in_a_folder_is_copied_from_then_on(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "work", RECIPE)
    begin_sites(run)
    close_round(run, 1)
    _, copy = RunPlace.of(url_of(tmp_path), run.path).reopen(say)
    close_round(run, 2)
    copy.after_round(2)
    assert fetch(url_of(tmp_path), tmp_path / "here").round == 2


def test_a_manifest_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    copy.url.files.pipe_file(copy.url.path(MANIFEST), b'{"format": 1, "wri')
    warnings: list[str] = []
    _, again = RunPlace.of(url_of(tmp_path), run.path).reopen(warnings.append)
    assert "It is written again" in warnings[0]
    again.after_round(1)
    assert fetch(url_of(tmp_path), tmp_path / "here").round == 1


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_is_gone_at_the_url_is_copied_again(tmp_path: Path, kind: str) -> None:
    """Somebody tidied up there, or two copies of one folder were in each other's way."""
    url = url_of(tmp_path) if kind == "memory" else f"file://{tmp_path}/shared/run"
    run, copy = copied(tmp_path, url)
    copy.url.files.rm_file(copy.url.path("metrics.jsonl"))
    copy.url.files.pipe_file(copy.url.path("recipe.toml"), b"")
    warnings: list[str] = []
    _, again = RunPlace.of(url, run.path).reopen(warnings.append)
    assert warnings == [f"{copy.url.shown}: 2 files changed or gone there; copied again"]
    again.after_round(1)
    assert fetch(url, tmp_path / "here").round == 1
    RunPlace.of(url, run.path).reopen(say)


def test_a_damaged_claim_is_refused(tmp_path: Path) -> None:
    place = RunPlace.of(url_of(tmp_path), tmp_path / "work")
    place.url.files.pipe_file(place.url.path(CLAIM), b"{}")
    with pytest.raises(BadFileError, match="it is not known which folder"):
        place.create(RECIPE)


def test_neither_url_nor_folder_with_a_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--resume: neither .* holds a run"):
        RunPlace.of(url_of(tmp_path), tmp_path / "work").reopen(say)


@pytest.mark.parametrize("url", ["memory://", "nosuchkind://bucket/run"])
def test_a_url_that_cannot_hold_a_run_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"names no folder|fsspec does not open it"):
        RunPlace.of(url, None)


@pytest.mark.parametrize("there", ["work", "work/inside", "", "link"])
def test_a_url_that_is_the_folder_itself_is_refused(tmp_path: Path, there: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "work")
    with pytest.raises(UsageError, match="a copy needs a place of its own"):
        RunPlace.of(f"file://{tmp_path}/{there}", tmp_path / "work")


def test_a_url_that_leads_back_to_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sftp://localhost does, of which no path of this machine is known."""
    monkeypatch.setattr(RunUrl, "local_folder", lambda url: None)
    place = RunPlace.of(f"file://{tmp_path}/work", tmp_path / "work")
    with pytest.raises(UsageError, match="a copy needs a place of its own"):
        place.create(RECIPE)
    assert not (tmp_path / "work" / CLAIM).exists()


def test_passwords_are_in_no_shown_url() -> None:
    assert shown_url("ftp://ann:secret@host/a/run/") == "ftp://host/a/run"
    assert shown_url("https://host/run?sig=secret#x") == "https://host/run"
    assert shown_url("s3://bucket/me@home/run") == "s3://bucket/me@home/run"
    assert shown_url("sftp://ann:p@ss@host/a/run") == "sftp://host/a/run"
    container = "abfs://container@account.dfs.core.windows.net/run"
    assert shown_url(container) == container


class Refusing(AbstractFileSystem):  # type: ignore[misc]
    """A file system that connects as it is opened, and names the password when it cannot."""

    protocol = "refusing"
    cachable = False

    def __init__(self, **given: object) -> None:
        raise self.error(f"no login as ann with p%40ss, p@ss ({given})")

    error: type[Exception] = RuntimeError

    @staticmethod
    def _get_kwargs_from_urls(urlpath: str) -> dict[str, str]:
        return {"given": urlpath}


@pytest.mark.parametrize(
    ("error", "kind"), [(RuntimeError, NetworkError), (ValueError, UsageError)]
)
def test_a_host_that_cannot_be_reached_is_one_message_without_the_password(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], kind: type[Exception]
) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(Refusing, "error", error)
    with pytest.raises(kind, match=r"refusing://host/run: .*no login as ann with …, …") as refused:
        RunPlace.of("refusing://ann:p%40ss@host/run?sig=signature", None)
    assert "p@ss" not in str(refused.value)
    assert "signature" not in str(refused.value)


def test_nothing_is_trained_or_charged_in_a_copy(tmp_path: Path) -> None:
    copied(tmp_path)
    fetch(url_of(tmp_path), tmp_path / "here")
    assert (tmp_path / "here" / COPY).is_file()
    here = RunDirectory.reopen(tmp_path / "here")
    with pytest.raises(RefusedError, match="a copy that was fetched from a URL"):
        simulate(here.recipe(), here)
    with pytest.raises(RefusedError, match="a copy that was fetched from a URL"):
        RunPlace.of(url_of(tmp_path), here.path).reopen(say)

    class Former:
        run = here

    with pytest.raises(RefusedError, match="a copy that was fetched from a URL"):
        go_on(RunDirectory.create(tmp_path / "next", RECIPE), Former())  # type: ignore[arg-type]
