"""The owner of a decision file is the person who decided; a malformed file approves nothing."""

import json
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cloister.client.policy_file import EXAMPLE, parse_policy
from cloister.client.site_file import SiteConfig, SiteFile
from cloister.deployment.site import decisions
from cloister.deployment.site import proposed as asked
from cloister.deployment.site.decisions import MOST_BYTES, Decision, Decisions, Kind
from cloister.deployment.site.proposed import KEPT, AskedStudies
from cloister.deployment.site.service import SiteService
from cloister.errors import BadFileError, RefusedError, UsageError
from cloister.recipe import parse_recipe, sent_document

STUDY, TERMS = "ab" * 32, "cd" * 32
ME = os.geteuid()
needs_root = pytest.mark.skipif(ME != 0, reason="only root gives files to others")


@pytest.fixture
def kept(tmp_path: Path) -> Decisions:
    """One approval."""
    found = Decisions(tmp_path / "ward.approvals")
    found.add(Kind.APPROVE, STUDY, TERMS, "Dr. Weber")
    return found


def mine(kept: Decisions) -> Path:
    return kept.path / f"{ME}.jsonl"


def test_what_is_decided_is_added_and_read_back(kept: Decisions) -> None:
    kept.add(Kind.REJECT, STUDY, TERMS)
    first, second = kept.read()
    assert (first.kind, first.study, first.terms, first.uid) == (Kind.APPROVE, STUDY, TERMS, ME)
    assert first.who == f"{decisions.login_of(ME)} (Dr. Weber)"
    assert (first.seq, second.seq, second.kind) == (1, 2, Kind.REJECT)
    lines = mine(kept).read_bytes().splitlines()
    kept.add(Kind.APPROVE, STUDY, TERMS)
    assert mine(kept).read_bytes().splitlines()[:2] == lines  # added to, never written over


def test_only_their_owner_reads_them(kept: Decisions) -> None:
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(mine(kept).stat().st_mode) == 0o600


def test_a_site_without_the_folder_has_decided_nothing(tmp_path: Path) -> None:
    assert Decisions(tmp_path / "none").read() == ()


def line(kept: Decisions, **changes: object) -> str:
    (one,) = kept.read()
    return json.dumps({**asdict(one), **changes}) + "\n"


def write(content: str | bytes) -> Callable[[Decisions], None]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda kept: mine(kept).write_bytes(raw) and None


def edited(**changes: object) -> Callable[[Decisions], None]:
    def act(kept: Decisions) -> None:
        mine(kept).write_text(line(kept, **changes))

    return act


def linked(kept: Decisions) -> None:
    mine(kept).rename(kept.path / "elsewhere")
    mine(kept).symlink_to(kept.path / "elsewhere")


def piped(kept: Decisions) -> None:
    mine(kept).unlink()
    os.mkfifo(mine(kept))


def foldered(kept: Decisions) -> None:
    mine(kept).unlink()
    mine(kept).mkdir()


def crowded(kept: Decisions) -> None:
    for uid in range(2000, 2101):
        (kept.path / f"{uid}.jsonl").touch()


ODD: dict[str, Callable[[Decisions], None]] = {
    "no JSON": write("approve\n"),
    "no table": write("3\n"),
    "a table in it": edited(terms={}),
    "bytes that are no text": write(b"\xff\xfe\n"),
    "an empty line": write("\n"),
    "nesting": write("[" * 100_000 + "\n"),
    "one key more": edited(note="x"),
    "another account": edited(uid=ME + 1),
    "an account that is no number": edited(uid="root"),
    "true as a number": edited(seq=True),
    "a number of thousands of digits": write('{"seq": ' + "9" * 5000 + "}\n"),
    "half a digest": edited(study="ab" * 31),
    "a digest in capitals": edited(study="AB" * 32),
    "a word of its own": edited(kind="perhaps"),
    "no time": edited(time="yesterday"),
    "a time without a zone": edited(time="2027-01-01T00:00:00"),
    "a name that moves the cursor": edited(name="\x1b[2J"),
    "a name without end": edited(name="x" * 300),
    "more bytes than it may have": write(b" " * (MOST_BYTES + 1)),
    "a link": linked,
    "a pipe": piped,
    "a folder": foldered,
    "a file that others write": lambda kept: mine(kept).chmod(0o620),
    "a file that all write": lambda kept: mine(kept).chmod(0o602),
    "a folder that all write": lambda kept: kept.path.chmod(0o703),
    "a folder whose group takes files away": lambda kept: kept.path.chmod(0o770),
    "more accounts than a site has": crowded,
}


@pytest.mark.parametrize("act", ODD.values(), ids=ODD.keys())
def test_what_is_not_as_it_was_written_lets_nothing_in(
    act: Callable[[Decisions], None], kept: Decisions
) -> None:
    """A rejection may be lost with it; and no one decision more can be added over it."""
    act(kept)
    with pytest.raises(RefusedError, match=r"ward\.approvals"):
        kept.read()
    with pytest.raises(RefusedError):
        kept.add(Kind.APPROVE, STUDY, TERMS)


@needs_root
def test_nobody_approves_in_another_s_name(kept: Decisions) -> None:
    """Who may write the folder can make a file of any name, and only their own is theirs."""
    forged = kept.path / "1001.jsonl"
    forged.write_text(line(kept, uid=1001, seq=2))
    with pytest.raises(RefusedError, match="but is named for user 1001"):
        kept.read()
    os.chown(forged, 1001, -1)
    forged.chmod(0o640)
    assert [one.uid for one in kept.read()] == [ME, 1001]
    assert kept.read()[1].login == decisions.login_of(1001)  # not as the line has it


@contextmanager
def being(account: pwd.struct_passwd) -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@needs_root
def test_an_agent_of_another_account_reads_what_root_decided_and_decides_nothing() -> None:
    """Where `site.agent_user` is set: it keeps what asked, and cannot write who approved."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        own = SiteConfig(name="ward", data="r.jsonl", public_records=9, ledger="r.ledger")
        file = SiteFile(Path(made) / "site.toml", own, parse_policy(EXAMPLE))
        SiteService._share_approvals(cast(SiteService, SimpleNamespace(_file=file)), nobody.pw_uid)
        kept, [(study, text)] = Decisions.of(file), recipes(1)
        old = os.umask(0o077)  # as the unit has it
        try:
            with being(nobody):
                AskedStudies.of(file).note(study, text)
            kept.add(Kind.APPROVE, study, TERMS)
            with being(nobody):
                assert [one.study for one in kept.read()] == [study]
                with pytest.raises(BadFileError, match="cannot be written"):
                    kept.add(Kind.APPROVE, study, TERMS)
        finally:
            os.umask(old)
        assert [one for one, _ in AskedStudies.of(file).asked()] == [study]


def test_a_shared_folder_s_files_are_read_by_its_group(tmp_path: Path) -> None:
    kept = Decisions(tmp_path / "ward.approvals")
    kept.path.mkdir()
    kept.path.chmod(0o3770)
    kept.add(Kind.APPROVE, STUDY, TERMS)
    assert stat.S_IMODE(mine(kept).stat().st_mode) == 0o640


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_line_that_a_crash_cut_off_was_never_said(cut: int, kept: Decisions) -> None:
    whole = mine(kept).read_bytes()
    kept.add(Kind.APPROVE, "ef" * 32, TERMS)
    torn = mine(kept).read_bytes()[: len(whole) + cut]
    mine(kept).write_bytes(torn)
    assert [one.study for one in kept.read()] == [STUDY]
    kept.add(Kind.REJECT, STUDY, TERMS)
    assert [one.kind for one in kept.read()] == [Kind.APPROVE, Kind.REJECT]


def test_a_file_ends_and_says_so(kept: Decisions, monkeypatch: pytest.MonkeyPatch) -> None:
    size = mine(kept).stat().st_size
    monkeypatch.setattr(decisions, "MOST_BYTES", size + 10)
    with pytest.raises(BadFileError, match="its limit"):
        kept.add(Kind.REJECT, STUDY, TERMS)
    assert mine(kept).stat().st_size == size


def test_of_two_with_one_number_the_rejection_counts_last(kept: Decisions) -> None:
    twice = line(kept, kind="reject") + line(kept)
    mine(kept).write_text(twice)
    assert kept.read()[-1].kind is Kind.REJECT


def test_a_decision_is_held_to_its_bounds() -> None:
    one = Decision(
        seq=1,
        kind=Kind.APPROVE,
        study=STUDY,
        terms=TERMS,
        uid=0,
        login="root",
        name="",
        time="2027-01-01T00:00:00+00:00",
    )
    with pytest.raises(UsageError, match="name"):
        replace(one, name="x\ny")


# Studies that asked ------------------------------------------------------------------------------


def recipes(count: int) -> list[tuple[str, str]]:
    found = [parse_recipe("", [f"model.sha256='{STUDY}'", f"study.seed={n}"]) for n in range(count)]
    return [(one.digest(), sent_document(one)) for one in found]


def test_a_coordinator_that_asks_for_ever_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is asked for again stays; of the rest, those that asked longest ago go."""
    kept, many = AskedStudies(tmp_path / "asked"), recipes(KEPT + 20)
    monkeypatch.setattr(asked, "NOTED", -1.0)
    clock = iter(range(10_000))
    (first, document), *others = many
    for study, text in [(first, document), *others]:
        kept.note(study, text)
        os.utime(kept.path / f"{study}.json", (0, next(clock)))
        kept.note(first, document)
        os.utime(kept.path / f"{first}.json", (0, next(clock)))
    assert len(list(kept.path.iterdir())) == KEPT
    found = [study for study, _ in kept.asked()]
    assert set(found) == {first, *(study for study, _ in others[-KEPT + 1 :])}
    assert kept.recipe(first).digest() == first


def test_asking_again_writes_nothing_anew(tmp_path: Path) -> None:
    kept, [(study, text)] = AskedStudies(tmp_path / "asked"), recipes(1)
    kept.note(study, text)
    before = (kept.path / f"{study}.json").stat()
    kept.note(study, text)
    after = (kept.path / f"{study}.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_document_is_of_the_study_that_it_is_called_by(tmp_path: Path) -> None:
    """Whoever writes the folder of documents approves nothing by it: the digest is the text's."""
    kept, [(one, text), (other, _)] = AskedStudies(tmp_path / "asked"), recipes(2)
    kept.note(other, text)
    with pytest.raises(BadFileError, match="is another study"):
        kept.recipe(other)
    for content in (b"", b"{", b"\xff", b"x" * (2**20 + 1), text[:-1].encode()):
        (kept.path / f"{one}.json").write_bytes(content)
        with pytest.raises(BadFileError, match="cannot be read"):
            kept.recipe(one)


def test_a_study_is_found_by_digits_that_are_its_own(tmp_path: Path) -> None:
    kept = AskedStudies(tmp_path / "asked")
    kept.path.mkdir()
    one, other = "ab" * 32, "ab" * 16 + "cd" * 16
    for study in (one, other):
        (kept.path / f"{study}.json").touch()
    assert kept.find(one) == one
    assert kept.find(one[:33]) == one
    for digits, said in (
        (one[:32], "2 studies begin"),
        ("abab", "first 8"),
        ("ef" * 8, "has asked here"),
        ("../../etc/passwd", "hexadecimal"),
        ("AB" * 8, "hexadecimal"),
        ("", "first 8"),
    ):
        with pytest.raises(UsageError, match=said):
            kept.find(digits)
