"""A joining site pins what was compared, and accepts nothing else afterwards."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.client.site_file import EXAMPLE, SiteFile, read_site
from cloister.deployment.enrolment.coordinator_key import key_fingerprint
from cloister.deployment.enrolment.documents import (
    Approval,
    JoinRequest,
    read_join_request,
    write_invite,
    write_welcome,
)
from cloister.deployment.enrolment.node_key import create_node_key, load_node_key, public_pem
from cloister.deployment.site import study_text as study_words
from cloister.deployment.site.joining import SiteMembership, take_invite, take_welcome
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.trusted_key import trust, trusted_coordinator
from cloister.errors import BadFileError, CloisterError, LedgerError, NetworkError, UsageError
from cloister.ledger.ledger import Ledger
from cloister.ledger.signing import public_hex
from cloister.protocol.signed_questions import TrustedCoordinator
from tests.support.papers import DAY, NOW, authority, invite, keys

FINGERPRINT = invite().fingerprint
KEY = public_hex(keys("hub").ledger)


@pytest.fixture
def site(tmp_path: Path) -> SiteFile:
    path = tmp_path / "site" / "site.toml"
    path.parent.mkdir()
    path.write_text(EXAMPLE.replace("st-marys", "ward"))
    file = read_site(path)
    begin_ledger(file)
    return file


def invited(folder: Path, **changes: str) -> Path:
    path = folder / "ward.invite.json"
    write_invite(path, invite(**changes), authority())
    return path


def join(site: SiteFile, folder: Path, rotate: bool = False) -> JoinRequest:
    return take_invite(site, invited(folder), FINGERPRINT, NOW, rotate)


def welcomed(folder: Path, asked: JoinRequest, by: str = "hub", **changes: str) -> Path:
    fields = {
        "coordinator": "hub",
        "site": "ward",
        "request": asked.fingerprint,
        "expires": (NOW + 365 * DAY).isoformat(),
        "coordinator_key": KEY,
    }
    path = folder / "ward.welcome.json"
    write_welcome(path, Approval(**{**fields, **changes}), authority(by))
    return path


def test_joining_begins_no_ledger(site: SiteFile, tmp_path: Path) -> None:
    other = replace(site, site=replace(site.site, ledger="other.ledger"))
    with pytest.raises(LedgerError, match="no ledger yet; cloister site init"):
        join(other, tmp_path)
    assert not other.ledger.exists()
    assert not SiteMembership.of(other).path.exists()


def test_a_site_joins(site: SiteFile, tmp_path: Path) -> None:
    place = SiteMembership.of(site)
    with pytest.raises(BadFileError, match="not joined a federation"):
        assert place.invite
    asked = join(site, tmp_path)
    assert read_join_request(place.request) == asked
    assert asked.ledger_key == Ledger(site.ledger).public_key
    assert asked.node_key == public_pem(load_node_key(place.node_key))
    assert (asked.site, asked.public_records) == ("ward", 1200)
    assert place.authority.read_bytes() == authority().pem
    assert place.invite == invite()
    assert not place.is_welcome()
    until = take_welcome(site, welcomed(tmp_path, asked), NOW)
    assert until == (NOW + 365 * DAY).isoformat()
    assert place.is_welcome()


def test_the_welcome_s_key_is_the_one_whose_questions_are_answered(
    site: SiteFile, tmp_path: Path
) -> None:
    asked = join(site, tmp_path)
    with pytest.raises(BadFileError, match=r"no coordinator's key yet.*cloister site trust"):
        trusted_coordinator(site)
    assert "does not have yet" in study_words._asker(site)["in_words"]
    take_welcome(site, welcomed(tmp_path, asked), NOW)
    assert trusted_coordinator(site) == TrustedCoordinator(KEY, "ward")
    assert key_fingerprint(KEY) in study_words._asker(site)["in_words"]
    other = public_hex(keys("another").ledger)
    take_welcome(site, welcomed(tmp_path, asked, coordinator_key=other), NOW)
    assert trusted_coordinator(site) == TrustedCoordinator(other, "ward")
    with pytest.raises(NetworkError, match="not signed by the coord"):
        take_welcome(site, welcomed(tmp_path, asked, by="other", coordinator_key=KEY), NOW)
    assert trusted_coordinator(site) == TrustedCoordinator(other, "ward")


def test_an_old_welcome_brings_no_key_back_that_was_renewed_since(
    site: SiteFile, tmp_path: Path
) -> None:
    asked, fresh = join(site, tmp_path), public_hex(keys("another").ledger)
    first = welcomed(tmp_path, asked).rename(tmp_path / "first.json")
    take_welcome(site, first, NOW)
    trust(site, fresh, key_fingerprint(fresh))
    take_welcome(site, first, NOW + DAY)  # the same paper once more
    assert trusted_coordinator(site).key == fresh
    renewal = {"coordinator_key": fresh, "expires": (NOW + 400 * DAY).isoformat()}
    take_welcome(site, welcomed(tmp_path, asked, **renewal), NOW + DAY)
    with pytest.raises(NetworkError, match="older than the last accepted welcome"):
        take_welcome(site, first, NOW + DAY)
    assert trusted_coordinator(site).key == fresh
    (SiteMembership.of(site).path / "welcome.json").write_text("damaged")
    take_welcome(site, welcomed(tmp_path, asked, **renewal), NOW + DAY)
    SiteMembership.of(site).coordinator.unlink()  # lost: the newest paper still has it
    take_welcome(site, welcomed(tmp_path, asked, **renewal), NOW + DAY)
    assert trusted_coordinator(site).key == fresh


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", KEY[:-1].encode(), b"\xff", b"ab" * 4000],
    ids=["empty", "no key", "cut", "no text", "long"],
)
def test_a_key_that_is_damaged_trusts_nobody(
    site: SiteFile, tmp_path: Path, content: bytes
) -> None:
    take_welcome(site, welcomed(tmp_path, join(site, tmp_path)), NOW)
    SiteMembership.of(site).coordinator.write_bytes(content)
    with pytest.raises(BadFileError, match="cloister site trust"):
        trusted_coordinator(site)


def test_what_a_site_keeps_is_its_own(site: SiteFile, tmp_path: Path) -> None:
    asked = join(site, tmp_path)
    take_welcome(site, welcomed(tmp_path, asked), NOW)
    place = SiteMembership.of(site)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.node_key.stat().st_mode) == 0o600
    assert {file.name for file in place.path.iterdir()} == {
        "invite.json",
        "authority.crt",
        "node.key",
        "request.json",
        "welcome.json",
        "coordinator.pub",
    }
    secret = place.node_key.read_text().splitlines()[2]
    for name in ("request.json", "welcome.json", "invite.json"):
        assert secret not in (place.path / name).read_text()


def test_no_paper_is_taken_without_the_other_channel(site: SiteFile, tmp_path: Path) -> None:
    path = invited(tmp_path)
    with pytest.raises(UsageError, match=f"--fingerprint: missing.*{FINGERPRINT}"):
        take_invite(site, path, None, NOW, False)
    for wrong in ("", "0" * 64):
        with pytest.raises(NetworkError, match="do not use it"):
            take_invite(site, path, wrong, NOW, False)
    with pytest.raises(UsageError, match="is shortened"):
        take_invite(site, path, FINGERPRINT[:-1], NOW, False)
    assert not SiteMembership.of(site).path.exists()
    assert take_invite(site, path, FINGERPRINT.upper(), NOW, False)


def test_an_invite_of_another_site_is_refused(site: SiteFile, tmp_path: Path) -> None:
    path = invited(tmp_path, site="clinic")
    with pytest.raises(BadFileError, match="invites clinic, but this site is ward"):
        take_invite(site, path, FINGERPRINT, NOW, False)


def test_a_site_has_one_coordinator(site: SiteFile, tmp_path: Path) -> None:
    join(site, tmp_path)
    other = invite(authority=authority("other").pem.decode())
    path = tmp_path / "other.json"
    write_invite(path, other, authority("other"))
    with pytest.raises(NetworkError, match="joined another coordinator already"):
        take_invite(site, path, other.fingerprint, NOW, False)
    assert SiteMembership.of(site).invite == invite()


def test_joining_again_changes_no_key(site: SiteFile, tmp_path: Path) -> None:
    assert join(site, tmp_path) == join(site, tmp_path)


def test_an_invite_is_answered_in_time_and_once_answered_stays(
    site: SiteFile, tmp_path: Path
) -> None:
    path, late = invited(tmp_path), NOW + 200 * DAY
    with pytest.raises(NetworkError, match="ask the coordinator for another invite"):
        take_invite(site, path, FINGERPRINT, late, False)
    first = take_invite(site, path, FINGERPRINT, NOW, False)
    kept = SiteMembership.of(site).path / "invite.json"
    for one in (path, kept):
        assert take_invite(site, one, FINGERPRINT, late, False) == first


def test_a_new_key_is_to_be_approved_anew(site: SiteFile, tmp_path: Path) -> None:
    """Rotation goes by the invite that the site took, however old."""
    first = join(site, tmp_path)
    old = welcomed(tmp_path, first)
    take_welcome(site, old, NOW)
    kept = SiteMembership.of(site).path / "invite.json"
    second = take_invite(site, kept, FINGERPRINT, NOW + 200 * DAY, True)
    assert second.node_key != first.node_key
    assert (second.ledger_key, second.token) == (first.ledger_key, first.token)
    assert not SiteMembership.of(site).is_welcome()
    with pytest.raises(NetworkError, match="another request than this site's last one"):
        take_welcome(site, old, NOW)
    take_welcome(site, welcomed(tmp_path, second), NOW)
    assert SiteMembership.of(site).is_welcome()


def test_a_welcome_for_a_key_that_is_gone_is_refused(site: SiteFile, tmp_path: Path) -> None:
    """As after a crash between making a key and asking for it."""
    asked = join(site, tmp_path)
    create_node_key(SiteMembership.of(site).node_key)
    with pytest.raises(NetworkError, match="has another key"):
        take_welcome(site, welcomed(tmp_path, asked), NOW)
    assert not SiteMembership.of(site).is_welcome()


def test_a_welcome_that_is_not_this_site_s_is_refused(site: SiteFile, tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="sent no request"):
        take_welcome(site, tmp_path / "none.json", NOW)
    asked = join(site, tmp_path)
    wrong: list[tuple[Path, str]] = [
        (welcomed(tmp_path, asked).rename(tmp_path / "1"), ""),
        (welcomed(tmp_path, asked, site="clinic").rename(tmp_path / "2"), "another request"),
        (welcomed(tmp_path, asked, request="x").rename(tmp_path / "3"), "another request"),
        (welcomed(tmp_path, asked, by="other").rename(tmp_path / "4"), "not signed by the coord"),
        (welcomed(tmp_path, asked, expires=NOW.isoformat()).rename(tmp_path / "5"), "valid until"),
        (invited(tmp_path), "is the invite; the welcome is needed"),
        (tmp_path / "none.json", "cannot be read"),
    ]
    for path, said in wrong[1:]:
        with pytest.raises(CloisterError, match=said):
            take_welcome(site, path, NOW + DAY)
        assert not SiteMembership.of(site).is_welcome()
    take_welcome(site, wrong[0][0], NOW + DAY)


def test_an_invite_that_was_put_into_the_folder_is_not_believed(
    site: SiteFile, tmp_path: Path
) -> None:
    """It is signed by its own authority, which nobody compared."""
    join(site, tmp_path)
    place = SiteMembership.of(site)
    pem = authority("other").pem.decode()
    write_invite(
        place.path / "invite.json", invite(authority=pem, address="evil:1"), authority("other")
    )
    with pytest.raises(NetworkError, match="whose fingerprint was compared"):
        assert place.invite
    place.authority.unlink()
    with pytest.raises(NetworkError, match="whose fingerprint was compared"):
        assert place.invite


def test_an_address_that_was_changed_on_the_way_is_found(site: SiteFile, tmp_path: Path) -> None:
    path = invited(tmp_path)
    document = json.loads(path.read_text())
    document["body"]["address"] = "evil.example.org:9443"
    path.write_text(json.dumps(document))
    with pytest.raises(NetworkError, match="changed after it was signed"):
        take_invite(site, path, FINGERPRINT, NOW, False)


def test_a_folder_that_cannot_be_written_is_named(site: SiteFile, tmp_path: Path) -> None:
    SiteMembership.of(site).path.write_text("a file in its place")
    with pytest.raises(BadFileError, match="cannot be"):
        join(site, tmp_path)
