"""An authority is rotated without locking a site out; at the end only the new one counts."""

import re
import shlex
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from cloister.cli.main import run
from cloister.client.site_file import EXAMPLE, read_site
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.coordinator.rotation import OVERLAP, announce, rotation_of, switch
from cloister.deployment.enrolment import sealed_key
from cloister.deployment.enrolment.authority import fingerprint
from cloister.deployment.enrolment.authority_key import KeyState, key_state
from cloister.deployment.enrolment.documents import write_invite
from cloister.deployment.enrolment.node_key import create_node_key
from cloister.deployment.enrolment.succession import certificates, read_succession, write_succession
from cloister.deployment.site.connectivity import reach
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.trust import settle, take_succession, trusts
from cloister.errors import BadFileError, NetworkError, UsageError
from tests.cli.test_joining import GROUPS, Table
from tests.deployment.coordinator.test_gate import CALL, FakeSuperLink, free_port, https, served
from tests.support.federation import admit
from tests.support.papers import DAY, NOW, authority, invite

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    config = ServerConfig(name="hub", address=f"localhost:{free_port()}")
    return ServerFolder.create(tmp_path / "hub", config, _now())


@pytest.fixture
def site(folder: ServerFolder, tmp_path: Path) -> SiteMembership:
    return joined(folder, tmp_path / "ward.federation")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def _now() -> datetime:
    return datetime.now(UTC)


def joined(folder: ServerFolder, path: Path) -> SiteMembership:
    made = SiteMembership(path)
    create_node_key(made.node_key)
    pem = folder.certificate.read_bytes()
    made.authority.write_bytes(pem)
    paper = invite(authority=pem.decode(), address=folder.config.address)
    write_invite(path / "invite.json", paper, folder.authority)
    return made


@contextmanager
def serving(folder: ServerFolder) -> Iterator[None]:
    """An endpoint with the folder's certificate, at the folder's address."""
    folder.renew(_now())
    port = folder.config.place[1]
    pair = (folder.path / "endpoint.key", folder.path / "endpoint.crt")
    with served(https(FakeSuperLink(), port, *pair)):
        yield


def connects(folder: ServerFolder, site: SiteMembership) -> bool:
    """Whether the site's TLS takes what the endpoint shows; `reach` and a client agree."""
    context = ssl.create_default_context(cafile=str(site.authority))
    url = f"https://{folder.config.address}/v1/fleet/{CALL}"
    try:
        answer = httpx.post(url, verify=context, trust_env=False, timeout=300)
        found = answer.status_code == 200
    except httpx.ConnectError:
        found = False
    steps = {step.name: step.fine for step in reach(site)}
    assert steps["TLS"] is found
    return found


def test_each_site_reaches_the_coordinator_before_during_and_after(
    folder: ServerFolder, site: SiteMembership, tmp_path: Path
) -> None:
    now = _now()
    slow = joined(folder, tmp_path / "slow.federation")  # takes the paper after the switch
    with serving(folder):
        assert connects(folder, site)
        paper = announce(folder, now, None)
        take_succession(site.path, folder.path / "succession.json", paper.fingerprint, now)
        assert len(certificates(site.authority.read_bytes())) == 2
        assert connects(folder, site)
        assert connects(folder, slow)
    shutil.copytree(folder.path, tmp_path / "former")
    assert switch(folder, running=False) == paper
    with serving(folder):
        assert connects(folder, site)
        assert not connects(folder, slow)
        take_succession(slow.path, folder.path / "succession.json", paper.fingerprint, now)
        assert connects(folder, slow)
    former = ServerFolder.open(tmp_path / "former")  # whoever kept the former authority's key
    with serving(former):
        assert connects(former, site)
        assert settle(site.path, now + OVERLAP)
        assert not connects(former, site)
    assert site.authority.read_bytes() == folder.certificate.read_bytes()
    with serving(folder):
        assert connects(folder, site)


def test_the_papers_hold_before_and_after_the_overlap(
    folder: ServerFolder, site: SiteMembership
) -> None:
    now, paper = _now(), announce(folder, _now(), None)
    first = site.invite
    take_succession(site.path, folder.path / "succession.json", paper.fingerprint, now)
    assert site.invite == first
    settle(site.path, now + OVERLAP)
    assert site.invite == first  # the invite is the former one's, and led on from
    site.authority.write_bytes(authority("another").pem)
    with pytest.raises(NetworkError, match="fingerprint was compared"):
        assert site.invite


def test_a_second_rotation_follows_the_first(folder: ServerFolder, site: SiteMembership) -> None:
    now, place = _now(), folder.path / "succession.json"
    first = announce(folder, now, None)
    take_succession(site.path, place, first.fingerprint, now)
    switch(folder, running=False)
    later = now + OVERLAP + DAY
    second = announce(folder, later, None)
    assert second.fingerprint != first.fingerprint
    take_succession(site.path, place, second.fingerprint, later)
    take_succession(site.path, place, second.fingerprint, later)  # twice changes nothing
    assert len(list(site.path.glob("succession-*"))) == 2
    pinned = [fingerprint(pem) for pem in certificates(site.authority.read_bytes())]
    assert pinned == [first.fingerprint, second.fingerprint]
    settle(site.path, later + OVERLAP)
    assert site.authority.read_text() == second.authority
    assert not settle(site.path, later + OVERLAP)


def test_a_rotation_within_another_s_overlap(folder: ServerFolder, site: SiteMembership) -> None:
    """As when the new key was read at once; a site that missed a paper takes both in order."""
    now, first_pem = _now(), folder.certificate.read_bytes()
    soon = now + timedelta(minutes=5)
    first = announce(folder, now, None)
    switch(folder, running=False)
    second = announce(folder, soon, None)
    switch(folder, running=False)
    last, earlier = folder.path / "succession.json", folder.path / "succession-1.json"
    with pytest.raises(NetworkError, match="those of earlier rotations"):
        take_succession(site.path, last, second.fingerprint, soon)
    assert site.authority.read_bytes() == first_pem
    take_succession(site.path, earlier, first.fingerprint, soon)
    take_succession(site.path, last, second.fingerprint, soon)
    assert len(certificates(site.authority.read_bytes())) == 3
    with serving(folder):
        assert connects(folder, site)
    assert settle(site.path, now + OVERLAP)
    assert len(certificates(site.authority.read_bytes())) == 2
    assert settle(site.path, soon + OVERLAP)
    assert site.authority.read_text() == second.authority


def test_no_authority_is_trusted_without_the_other_channel(
    folder: ServerFolder, site: SiteMembership
) -> None:
    paper, place = announce(folder, NOW, None), folder.path / "succession.json"
    before = sorted(site.path.iterdir()), site.authority.read_bytes()
    with pytest.raises(UsageError, match=f"--fingerprint: missing.*{paper.fingerprint}"):
        take_succession(site.path, place, None, NOW)
    with pytest.raises(NetworkError, match="with the former authority's key"):
        take_succession(site.path, place, fingerprint(folder.certificate.read_bytes()), NOW)
    assert (sorted(site.path.iterdir()), site.authority.read_bytes()) == before


@pytest.mark.parametrize("kind", ["by another", "of another", "by a former one", "no authority"])
def test_a_paper_that_is_not_the_coordinator_s_is_refused(
    folder: ServerFolder, site: SiteMembership, tmp_path: Path, kind: str
) -> None:
    good, path = announce(folder, NOW, None), tmp_path / "paper.json"
    former = folder.authority
    paper, signer = replace(good, authority=authority("evil").pem.decode()), former
    if kind == "by another":
        signer = authority("evil")
    elif kind == "of another":
        paper = replace(paper, coordinator="other")
    elif kind == "by a former one":
        take_succession(site.path, folder.path / "succession.json", good.fingerprint, NOW)
    elif kind == "no authority":  # a certificate that may sign none
        endpoint = (folder.path / "endpoint.crt").read_text()
        paper = replace(good, authority=endpoint)
    write_succession(path, paper, signer)
    before = site.authority.read_bytes()
    with pytest.raises((NetworkError, BadFileError)):
        take_succession(site.path, path, paper.fingerprint, NOW)
    assert site.authority.read_bytes() == before
    assert not trusts(site.path, authority("evil").pem)


def test_every_byte_of_the_paper_counts(folder: ServerFolder, tmp_path: Path) -> None:
    announce(folder, NOW, None)
    content, trusted = (folder.path / "succession.json").read_bytes(), folder.certificate
    good = read_succession(Path("paper"), trusted.read_bytes(), content)
    for at in range(0, len(content), 7):
        changed = content[:at] + bytes([content[at] ^ 0x20]) + content[at + 1 :]
        try:
            found = read_succession(Path("paper"), trusted.read_bytes(), changed)
        except (BadFileError, NetworkError):
            continue
        assert found == good  # spaces between its fields, capitals of hex


def test_a_switch_that_was_cut_off_goes_on(folder: ServerFolder) -> None:
    paper = announce(folder, NOW, None)
    assert announce(folder, NOW + DAY, None) == paper  # the same again
    (folder.path / "ca-former.crt").write_bytes(folder.certificate.read_bytes())
    (folder.path / "ca-next.key").replace(folder.path / "ca.key")  # and then the power went
    with pytest.raises(BadFileError, match="not the key of"):
        assert folder.authority
    assert switch(folder, running=False) == paper
    assert folder.authority.pem.decode() == paper.authority
    found = rotation_of(folder)
    assert found is not None
    assert found.switched
    assert not list(folder.path.glob("ca-next*"))
    assert set(folder.renew(NOW)) == {"endpoint"}


def test_nothing_is_switched_that_was_not_announced_or_runs(folder: ServerFolder) -> None:
    with pytest.raises(UsageError, match="no authority was announced"):
        switch(folder, running=False)
    announce(folder, NOW, None)
    with pytest.raises(UsageError, match="the service is running"):
        switch(folder, running=True)
    switch(folder, running=False)
    with pytest.raises(UsageError, match="no authority was announced"):
        switch(folder, running=False)


def test_an_encrypted_key_is_followed_by_one_under_the_same_passphrase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the switch issues what the service then serves, so that it starts unattended."""
    monkeypatch.setattr(sealed_key, "COST", 2)  # `test_sealed_key.py` holds the real cost
    config, path = ServerConfig(name="hub", address="localhost:9443"), tmp_path / "passphrase"
    path.write_bytes(b"correct horse")
    path.chmod(0o600)
    folder = ServerFolder.create(tmp_path / "hub", config, _now(), b"correct horse")
    rotate = ["server", "rotate-ca", str(folder.path), "--ca-passphrase-file", str(path)]
    assert run(rotate) == 0
    assert run([*rotate[:3], "--switch"]) == 2
    assert run([*rotate, "--switch"]) == 0
    capsys.readouterr()
    assert key_state(folder.path) is KeyState.SEALED
    assert folder.can_serve(_now())
    assert folder.authority.pem == folder.certificate.read_bytes()


def test_the_documented_commands_rotate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/deployment.md, as they stand there, from one folder."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = text.partition("## Another authority\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\$ cloister (.+)$", section, re.M)
    assert [line.split()[1] for line in lines] == ["rotate-ca", "trust-ca", "rotate-ca"]
    made = Table(tmp_path, capsys)
    made.server = tmp_path / "coordinator"
    monkeypatch.chdir(tmp_path)
    _join(made, tmp_path)
    told = ""
    for line in lines:
        words = [GROUPS.findall(told)[0] if word == "…" else word for word in shlex.split(line)]
        words = ["coordinator/succession.json" if w == "succession.json" else w for w in words]
        assert run(words) == 0
        told = capsys.readouterr().out
    membership = SiteMembership(tmp_path / "st-marys.federation")
    new = (tmp_path / "coordinator" / "ca.crt").read_bytes()
    assert certificates(membership.authority.read_bytes())[-1] == new
    assert settle(membership.path, _now() + timedelta(days=61))
    assert membership.authority.read_bytes() == new


def _join(made: Table, folder: Path) -> None:
    made.init()
    (folder / "site.toml").write_text(EXAMPLE)
    begin_ledger(read_site(folder / "site.toml"))
    admit(ServerFolder.open(made.server), read_site(folder / "site.toml"), _now())
