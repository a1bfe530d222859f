"""Any sequence of changes to members gives the state of a slow model, and no change is lost."""

import dataclasses
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cloister.deployment.coordinator.members import (
    INVITE_LIFE,
    MEMBERSHIP_LIFE,
    Member,
    Members,
    MemberStatus,
    approved,
    changing,
    connecting,
    invited,
    read_members,
    revoked,
)
from cloister.deployment.enrolment.documents import JoinRequest
from cloister.errors import BadFileError, CloisterError, NetworkError, UsageError
from tests.support.examples import tries
from tests.support.papers import DAY, NOW, request


def joined(members: Members, site: str, now: datetime = NOW, **asked: str) -> dict[str, Member]:
    """Members with one more, by both steps."""
    known = invited(members, site, now)
    return approved(known, request(site, known[site].token, **asked), now)


def test_from_invited_to_approved_to_revoked() -> None:
    members = invited({}, "ward", NOW)
    assert connecting(members, NOW) == {}
    members = approved(members, request("ward", members["ward"].token), NOW)
    assert set(connecting(members, NOW)) == {"ward"}
    assert members["ward"].request == request("ward", members["ward"].token).fingerprint
    members = revoked(members, "ward")
    assert connecting(members, NOW) == {}
    assert revoked(members, "ward") == members


def test_a_membership_ends_at_its_time() -> None:
    members = joined({}, "ward")
    ends = NOW + MEMBERSHIP_LIFE
    assert connecting(members, ends - timedelta(microseconds=1))
    assert not connecting(members, ends)


def test_a_membership_is_renewed_by_the_same_request() -> None:
    members = joined({}, "ward")
    later = NOW + MEMBERSHIP_LIFE + DAY
    assert not connecting(members, later)
    members = approved(members, request("ward", members["ward"].token), later)
    assert connecting(members, later + DAY)
    assert members["ward"].former_keys == ()


def test_each_invite_is_another_and_voids_the_one_before() -> None:
    first = invited({}, "ward", NOW)
    second = invited(first, "ward", NOW)
    assert first["ward"].token != second["ward"].token
    with pytest.raises(NetworkError, match="does not answer the last invite"):
        approved(second, request("ward", first["ward"].token), NOW)


def test_an_invite_is_answered_in_time() -> None:
    members = invited({}, "ward", NOW)
    asked = request("ward", members["ward"].token)
    assert approved(members, asked, NOW + INVITE_LIFE)
    with pytest.raises(NetworkError, match="the invite was valid until"):
        approved(members, asked, NOW + INVITE_LIFE + DAY)


def test_a_request_of_nobody_invited_is_refused() -> None:
    with pytest.raises(NetworkError, match="cloister member invite ward"):
        approved({}, request("ward"), NOW)
    members = joined({}, "ward")
    with pytest.raises(NetworkError, match="does not answer the last invite"):
        approved(members, request("clinic", members["ward"].token), NOW)


def test_a_member_is_not_invited_over() -> None:
    with pytest.raises(UsageError, match="is a member already"):
        invited(joined({}, "ward"), "ward", NOW)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/b",
        "a\\b",
        ".a",
        "a\nb",
        "a\x00",
        "\ud800",
        "a\u200bb",
        "a\u202eb",
        "x" * 300,
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not valid as a site's name"):
        invited({}, name, NOW)


def test_a_stranger_cannot_be_revoked() -> None:
    with pytest.raises(UsageError, match="it knows: none"):
        revoked({}, "ward")
    with pytest.raises(UsageError, match="it knows: ward"):
        revoked(joined({}, "ward"), "clinic")


def test_a_revoked_site_is_not_approved_again_by_its_old_request() -> None:
    members = joined({}, "ward")
    asked = request("ward", members["ward"].token)
    with pytest.raises(NetworkError, match="was revoked"):
        approved(revoked(members, "ward"), asked, NOW)
    again = invited(revoked(members, "ward"), "ward", NOW)
    with pytest.raises(NetworkError, match="does not answer the last invite"):
        approved(again, asked, NOW)


def test_a_revoked_node_key_never_comes_back() -> None:
    """Flower takes no key a second time; and whoever had the key may have it still."""
    members = invited(revoked(joined({}, "ward"), "ward"), "ward", NOW)
    token = members["ward"].token
    with pytest.raises(NetworkError, match=r"revoked or replaced.*--rotate"):
        approved(members, request("ward", token), NOW)
    members = approved(members, request("ward", token, node="ward 2"), NOW)
    assert connecting(members, NOW)
    with pytest.raises(NetworkError, match="has the same key as ward"):
        joined(members, "clinic", node="ward")


def test_a_replaced_node_key_never_comes_back() -> None:
    members = joined({}, "ward")
    token = members["ward"].token
    members = approved(members, request("ward", token, node="ward 2"), NOW)
    assert members["ward"].former_keys == (request("ward").node_key,)
    with pytest.raises(NetworkError, match="revoked or replaced"):
        approved(members, request("ward", token), NOW)
    assert approved(members, request("ward", token, node="ward 2"), NOW) == members


def test_two_sites_share_neither_key_nor_ledger() -> None:
    members = joined({}, "ward")
    for whose in (members, revoked(members, "ward")):
        with pytest.raises(NetworkError, match="has the same key as ward"):
            joined(whose, "clinic", node="ward")
        with pytest.raises(NetworkError, match="has the same ledger as ward"):
            joined(whose, "clinic", ledger="ward")


def test_a_site_keeps_its_ledger() -> None:
    members = joined({}, "ward")
    with pytest.raises(NetworkError, match="another ledger than before"):
        approved(members, request("ward", members["ward"].token, ledger="new"), NOW)
    late = NOW + MEMBERSHIP_LIFE + DAY  # over, and invited anew
    for _ in range(2):
        members = invited(members, "ward", late)
    with pytest.raises(NetworkError, match="another ledger than before"):
        approved(members, request("ward", members["ward"].token, "ward 2", "new"), late)
    members = joined(revoked(members, "ward"), "ward", late, node="ward 2", ledger="new")
    assert connecting(members, late)  # on purpose, by revoking


def write(path: Path, members: Members) -> None:
    with changing(path) as change:
        change(members)


def test_members_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "members.json"
    assert read_members(path) == {}
    members = invited(joined({}, "ward"), "clinic", NOW)
    members = approved(members, request("ward", members["ward"].token, node="ward 2"), NOW)
    write(path, members)
    assert read_members(path) == members
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"members.json", "members.lock"}


def test_a_file_of_before_former_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "members.json"
    fields = dataclasses.asdict(joined({}, "ward")["ward"])
    del fields["former_keys"]
    path.write_text(json.dumps({"ward": fields}))
    assert set(connecting(read_members(path), NOW)) == {"ward"}


MEMBER = dataclasses.asdict(joined({}, "ward")["ward"])


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "[" * 50_000,
        '{"ward": []}',
        '{"ward": {}}',
        '{"ward": {"standing": "boss"}}',
        *(
            json.dumps({"ward": {**MEMBER, **change}})
            for change in (
                {"expires": "soon"},
                {"expires": "2027-01-01"},
                {"expires": 5},
                {"node_key": None},
                {"ledger_key": 3},
                {"former_keys": 3},
                {"former_keys": [3]},
                {"rank": 1},
            )
        ),
    ],
)
def test_damaged_members_are_named(tmp_path: Path, document: str) -> None:
    path = tmp_path / "members.json"
    path.write_text(document)
    with pytest.raises(BadFileError, match="restore it from a backup"):
        read_members(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(BadFileError, match="nothing was changed"),
        changing(tmp_path / "none" / "members.json"),
    ):
        pass
    (tmp_path / "members.json").mkdir()
    with (
        pytest.raises(BadFileError, match="nothing was changed"),
        changing(tmp_path / "members.json") as change,
    ):
        change({})


INVITE_MANY = """
import sys, time
from pathlib import Path
from cloister.deployment.coordinator.members import changing, invited, read_members
from datetime import UTC, datetime

path = Path(sys.argv[1])
print("ready", flush=True)
while not path.with_name("go").exists():
    time.sleep(0.001)
for name in sys.argv[2:]:
    with changing(path) as change:
        change(invited(read_members(path), name, datetime.now(UTC)))
"""


def test_changes_from_several_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "members.json"
    groups = [[f"{group}-{number}" for number in range(8)] for group in "abcd"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", INVITE_MANY, str(path), *names], stdout=subprocess.PIPE
        )
        for names in groups
    ]
    for process in processes:
        assert process.stdout
        with process.stdout as told:
            assert told.readline() == b"ready\n"
    path.with_name("go").touch()
    assert [process.wait(600) for process in processes] == [0] * len(groups)
    assert set(read_members(path)) == {name for names in groups for name in names}


@dataclass
class Known:
    """A site in the model: all that ever happened to it."""

    token: int | None = None  # which of the invites counts
    until: datetime = NOW
    standing: str = ""
    node: str = ""
    ledger: str = ""
    spoilt: set[str] = field(default_factory=set)


class Joining(RuleBasedStateMachine):
    """Members, on disk, against a model that keeps every invite it ever wrote."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.path = Path(self._folder.name) / "members.json"
        self.now = NOW
        self.model: dict[str, Known] = {}
        self.tokens: list[tuple[str, str]] = []

    def teardown(self) -> None:
        self._folder.cleanup()

    def agree(self, change: Callable[[Members], Members], allowed: bool) -> None:
        before = read_members(self.path)
        try:
            after = change(before)
        except CloisterError:
            assert not allowed
            return
        assert allowed
        write(self.path, after)

    @initialize()
    def nobody(self) -> None:
        assert read_members(self.path) == {}

    def may_connect(self, site: str) -> bool:
        known = self.model.get(site)
        return known is not None and known.standing == "approved" and self.now < known.until

    @rule(site=st.sampled_from("ab"))
    def invite(self, site: str) -> None:
        allowed = not self.may_connect(site)
        self.agree(lambda members: invited(members, site, self.now), allowed)
        if allowed:
            known = self.model.setdefault(site, Known())
            if known.standing == "revoked":
                known.ledger = ""
            known.spoilt |= {known.node} - {""}
            self.tokens.append((site, read_members(self.path)[site].token))
            known.token, known.standing, known.node = len(self.tokens) - 1, "invited", ""
            known.until = self.now + INVITE_LIFE

    @rule(
        site=st.sampled_from("ab"),
        which=st.integers(0, 3),
        keys=st.sampled_from("abc"),
        ledger=st.sampled_from("ab"),
    )
    def approve(self, site: str, which: int, keys: str, ledger: str) -> None:
        place = len(self.tokens) - 1 - which
        token = self.tokens[place][1] if place >= 0 else "none"
        known = self.model.get(site)
        others = [other for name, other in self.model.items() if name != site]
        allowed = (
            known is not None
            and place >= 0
            and known.token == place
            and known.standing != "revoked"
            and not (known.standing == "invited" and self.now > known.until)
            and keys not in known.spoilt
            and all(keys not in {other.node, *other.spoilt} for other in others)
            and all(ledger != other.ledger for other in others)
            and known.ledger in ("", ledger)
        )
        asked = request(site, token, keys, ledger)
        self.agree(lambda members: approved(members, asked, self.now), allowed)
        if allowed and known is not None:
            known.spoilt |= {known.node} - {"", keys}
            known.standing, known.node, known.ledger = "approved", keys, ledger
            known.until = self.now + MEMBERSHIP_LIFE

    @rule(site=st.sampled_from("ab"))
    def revoke(self, site: str) -> None:
        self.agree(lambda members: revoked(members, site), site in self.model)
        if site in self.model:
            self.model[site].standing = "revoked"

    @rule(days=st.sampled_from([1, 31, 366]))
    def wait(self, days: int) -> None:
        self.now += timedelta(days=days)

    @invariant()
    def the_same_may_connect(self) -> None:
        members = read_members(self.path)
        expected = {site: known for site, known in self.model.items() if self.may_connect(site)}
        assert {
            site: (member.node_key, member.ledger_key)
            for site, member in connecting(members, self.now).items()
        } == {
            site: (
                request(site, node=known.node).node_key,
                request(site, ledger=known.ledger).ledger_key,
            )
            for site, known in expected.items()
        }

    @invariant()
    def what_is_kept_is_what_happened(self) -> None:
        for site, member in read_members(self.path).items():
            assert member.standing is MemberStatus(self.model[site].standing)
            assert isinstance(request(site), JoinRequest)
            spoilt = {request(site, node=key).node_key for key in self.model[site].spoilt}
            assert set(member.former_keys) == spoilt


TestJoining = Joining.TestCase
TestJoining.settings = settings(max_examples=tries(40), stateful_step_count=20, deadline=None)
