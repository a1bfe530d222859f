"""`cloister site studies` shows a study to the operator, who approves or rejects it."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.site_file import read_site
from cloister.deployment.site.approvals import ApprovalState
from cloister.deployment.site.decisions import Decisions, login_of
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.proposed import AskedStudies
from cloister.deployment.site.studies import shown
from cloister.ledger.stated import of_plan
from cloister.recipe import Recipe, parse_recipe, sent_document
from tests.support.approvals import standing
from tests.support.forks import Forks, forks
from tests.support.studies import NOTES, write_notes

BASE = "ab" * 32
LABELS = sorted(NOTES)
NOW = datetime.now(UTC)
SITE = f"""
[site]
name = "ward"
data = "records.jsonl"
public_records = 1200
ledger = "ward.ledger"

[records]
task = "sequence-classification"
labels = {json.dumps(LABELS)}

[budget]
epsilon = 12.0
delta = 2e-5

[privacy]
max_grad_norm = 2.0

[accept]
tasks = ["sequence-classification", "causal-lm"]
base_sha256 = ["{BASE}"]
"""


def study(*assignments: str) -> Recipe:
    return parse_recipe(
        "",
        [
            "study.name=triage",
            f"model.sha256='{BASE}'",
            f"task.labels={json.dumps(LABELS)}",
            "federation.num_rounds=12",
            "privacy.epsilon=4.0",
            "privacy.max_grad_norm=8.0",
            *assignments,
        ],
    )


def make(folder: Path, more: str = "") -> Path:
    """A site with a ledger, at which `study()` has asked."""
    folder.mkdir(exist_ok=True)
    path = folder / "site.toml"
    path.write_text(SITE + more)
    write_notes(folder / "records.jsonl", 40)
    begin_ledger(read_site(path))
    ask(path, study())
    return path


def ask(path: Path, recipe: Recipe) -> str:
    AskedStudies.of(read_site(path)).note(recipe.digest(), sent_document(recipe))
    return recipe.digest()


# Python and its packages may lie where only root reads: they are loaded before an account changes.
SHOWN = """
import contextlib, io
from cloister.cli.main import run
with contextlib.redirect_stdout(io.StringIO()):
    assert run({words}) == 0
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Runs commands in processes of their own, which find loaded what a shown study needs."""
    folder = tmp_path_factory.mktemp("loaded")
    words = ["site", "studies", "show", str(make(folder / "ward")), study().digest()]
    with forks(folder, SHOWN.format(words=words)) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make(tmp_path / "ward")


def state(path: Path) -> ApprovalState:
    return shown(read_site(path), study().digest(), NOW)[1].state


Read = pytest.CaptureFixture[str]


def listed(path: Path, capsys: Read) -> list[dict[str, str]]:
    capsys.readouterr()
    assert run(["site", "studies", "list", str(path), "--json"]) == 0
    rows: list[dict[str, str]] = json.loads(capsys.readouterr().out)["studies"]
    return rows


def test_an_operator_sees_in_plain_words_what_they_are_asked(site: Path, capsys: Read) -> None:
    digest = study().digest()
    assert run(["site", "studies", "list", str(site)]) == 0
    told = capsys.readouterr().out
    assert f"{digest[:12]}  waiting   triage" in told
    assert "1 person must approve it" in told
    assert run(["site", "studies", "show", str(site), digest[:8]]) == 0
    told = capsys.readouterr().out
    plan = shown(read_site(site), digest, NOW)[0].plan
    for said in (
        digest,
        BASE,
        "all-MiniLM-L6-v2",
        "sequence-classification",
        *LABELS,
        "one record",
        str(of_plan(plan)),
        "for one record added or removed",
        "of the lifetime ε = 12 at δ = 2e-05, spent so far: ε = 0.0000 of the budget's 12",
        "all of this study fits",
        "12 rounds of 1 step",
        "at most 20,000,000 bytes in a round and 240,000,000 in all",
        "factor B of adapters of rank 4",
        "no coordinator: this site has not joined one",
        "max_grad_norm: 8 asked, 2 by this site's policy: more is clipped",
        "stands     waiting",
    ):
        assert said in told, said
    assert run(["site", "studies", "show", str(site), digest, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["promise"] == of_plan(plan).to_json()
    assert (facts["rounds"], facts["labels"], facts["state"]) == (12, LABELS, "waiting")
    assert facts["budget"]["is_covered"]


def test_what_a_coordinator_wrote_moves_no_cursor(site: Path, capsys: Read) -> None:
    """Labels may hold line breaks; here they are shown as Python writes them."""
    label = "knee\x1b[2J\r\nstands     approved: by all"
    digest = ask(site, study(f"task.labels={json.dumps([*LABELS, label])}"))
    assert run(["site", "studies", "show", str(site), digest]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "knee\\x1b[2J\\r\\nstands" in told
    assert "\nstands     approved" not in told


def test_a_chat_template_is_shown_by_its_hash(site: Path, capsys: Read) -> None:
    from cloister.tasks.template_rules import template_sha256

    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    own = template_sha256(text)
    whole = site.read_text().replace('task = "sequence-classification"', 'task = "causal-lm"')
    whole = whole.replace(f"labels = {json.dumps(LABELS)}\n", "") + f'templates = ["{own}"]\n'
    site.write_text(whole)
    chat = ("task.kind=causal-lm", "task.labels=[]")
    for more, said in (
        ((), "the base's own, or the plain one where it has none"),
        ((f"task.chat_template={json.dumps(text)}",), f"the study's own, SHA-256 {own}"),
    ):
        digest = ask(site, study(*chat, *more))
        assert run(["site", "studies", "show", str(site), digest]) == 0
        assert said in capsys.readouterr().out


def test_a_study_is_approved_by_one_command(site: Path, capsys: Read) -> None:
    digest = study().digest()
    assert run(["site", "studies", "approve", str(site), digest, "--yes", "--name", "Dr. W"]) == 0
    told = capsys.readouterr().out
    assert told.index("costs") < told.index("approved by")  # it is seen first
    assert f"approved by {login_of(os.geteuid())} (Dr. W)" in told
    assert state(site) is ApprovalState.APPROVED
    assert run(["site", "status", str(site)]) == 0
    assert f"approved: study {digest[:12]}" in capsys.readouterr().out
    assert run(["site", "studies", "reject", str(site), digest, "--yes"]) == 0
    assert state(site) is ApprovalState.REJECTED
    (row,) = listed(site, capsys)
    assert row["state"] == "rejected"


def test_the_short_spelling_is_for_the_folder_of_site_toml(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.parent)
    assert run(["site", "approve", study().digest(), "--yes"]) == 0
    assert state(site) is ApprovalState.APPROVED


def test_nobody_approves_what_they_were_not_asked_about(site: Path, capsys: Read) -> None:
    digest = study().digest()
    for words, said in (
        ([digest], "there is no terminal to ask the question"),
        ([digest[:12], "--yes"], "the whole digest of the study is needed"),
        (["ef" * 32, "--yes"], "has asked here"),
        (["abc", "--yes"], "at least the first 8"),
    ):
        for verb in ("approve", "reject"):
            assert run(["site", "studies", verb, str(site), *words]) == 2
            assert said in " ".join(capsys.readouterr().err.split())
    assert Decisions.of(read_site(site)).read() == ()


@pytest.mark.parametrize(("typed", "found"), [("triage\n", "approved"), ("yes\n", "waiting")])
def test_at_a_terminal_the_study_s_name_is_typed(
    site: Path, typed: str, found: str, loaded: Forks
) -> None:
    import pty

    leader, follower = pty.openpty()
    os.write(leader, typed.encode())
    words = ["site", "studies", "approve", str(site), study().digest()[:10]]
    program = f"import sys; from cloister.cli.main import run; sys.exit(run({words}))"
    done = loaded.run(program, stdin=os.ttyname(follower))
    os.close(leader)
    os.close(follower)
    assert "costs" in done.stdout
    assert done.returncode == (0 if found == "approved" else 2)
    assert state(site).value == found


def test_a_study_that_the_budget_does_not_cover_says_so(tmp_path: Path, capsys: Read) -> None:
    site = make(tmp_path / "ward")
    file = read_site(site)
    from cloister.ledger.charge import Charge
    from cloister.ledger.ledger import Ledger
    from cloister.ledger.reservation import Reservation

    terms, _ = shown(file, study().digest(), NOW)
    ledger = Ledger(file.ledger)
    for number in range(1, 12):
        charge = Charge(study="0" * 64, round=number, plan=terms.plan, request="")
        granted = ledger.reserve(charge)
        assert isinstance(granted, Reservation)
        granted.release(b"bytes")
    digest = ask(site, study("privacy.epsilon=11.0"))
    assert run(["site", "studies", "show", str(site), digest, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["budget"]["rounds_left"] < 12
    assert "of this study fits" not in facts["budget"]["in_words"]


def test_doctor_says_whether_a_study_would_be_let_in(site: Path, capsys: Read) -> None:
    from cloister.deployment.site.checks import CheckLevel
    from cloister.deployment.site.doctor_study import _approval

    def level() -> tuple[CheckLevel, str]:
        terms, _ = shown(read_site(site), study().digest(), NOW)
        found = _approval(terms)
        return found.level, found.detail

    assert level()[0] is CheckLevel.WARN
    whole = site.read_text()
    site.write_text(whole + standing(BASE, max_rounds=11))
    found, detail = level()
    assert found is CheckLevel.WARN
    assert "approvals.standing 1 lacks: max_rounds: 12 here, 11 at most" in detail
    site.write_text(whole + standing(BASE))
    assert level()[0] is CheckLevel.PASS
    assert run(["site", "studies", "reject", str(site), study().digest(), "--yes"]) == 0
    assert level()[0] is CheckLevel.FAIL


def test_what_the_policy_takes_no_more_is_listed_with_why(site: Path, capsys: Read) -> None:
    site.write_text(site.read_text().replace(BASE, "cd" * 32))
    (row,) = listed(site, capsys)
    assert row["state"] == "refused"
    assert "base" in row["why"]
    assert run(["site", "studies", "approve", str(site), study().digest(), "--yes"]) == 4


def test_the_policy_says_who_must_approve(site: Path, capsys: Read) -> None:
    assert run(["site", "policy", "show", str(site)]) == 0
    assert "No study begins before 1 person here approved it" in capsys.readouterr().out
    more = '\n[approvals]\nneeded = 2\noperators = ["alice", "bob"]\ndays = 30\n'
    site.write_text(site.read_text() + more + standing(BASE, max_epsilon=2.0))
    assert run(["site", "policy", "show", str(site)]) == 0
    told = capsys.readouterr().out
    for said in ("2 people", "alice, bob", "30 days", "ε of at most 2", "until 2100-01-01"):
        assert said in told


# Four eyes ---------------------------------------------------------------------------------------

GROUP, ALICE, BOB = 4711, 4712, 4713


@pytest.fixture
def shared() -> Iterator[Path]:
    """A site of root's, whose folder of approvals a group shares."""
    if os.geteuid() != 0:
        pytest.skip("only root can run commands as two other accounts")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        path = make(folder / "ward", "\n[approvals]\nneeded = 2\n")
        path.parent.chmod(0o755)
        place = Decisions.of(read_site(path)).path
        os.chown(place, -1, GROUP)
        place.chmod(0o3770)
        kept = AskedStudies.of(read_site(path)).path
        os.chown(kept, -1, GROUP)
        kept.chmod(0o750)
        for document in kept.iterdir():
            os.chown(document, -1, GROUP)
            document.chmod(0o640)
        yield path


AS_ACCOUNT = """
import os, sys
from cloister.cli.main import run
os.setgroups([]), os.setgid({group}), os.setuid({uid})
sys.exit(run({words}))
"""


def as_account(
    loaded: Forks, uid: int, verb: str, site: Path, *more: str, group: int = GROUP
) -> subprocess.CompletedProcess[str]:
    words = ["site", "studies", verb, str(site), study().digest(), "--yes", *more]
    return loaded.run(AS_ACCOUNT.format(uid=uid, group=group, words=words))


def test_two_accounts_approve_and_one_account_does_not(shared: Path, loaded: Forks) -> None:
    """Whatever they call themselves: who they are, the operating system says."""
    done = as_account(loaded, ALICE, "approve", shared, "--name", "Alice")
    assert done.returncode == 0, done.stderr
    assert "costs" in done.stdout
    assert "1 person more must" in done.stdout
    again = as_account(loaded, ALICE, "approve", shared, "--name", "Bob")
    assert again.returncode == 0, again.stderr
    assert state(shared) is ApprovalState.WAITING
    done = as_account(loaded, BOB, "approve", shared)
    assert done.returncode == 0, done.stderr
    assert state(shared) is ApprovalState.APPROVED
    assert {one.uid for one in Decisions.of(read_site(shared)).read()} == {ALICE, BOB}
    assert as_account(loaded, BOB, "reject", shared).returncode == 0
    assert state(shared) is ApprovalState.REJECTED


def test_an_account_outside_the_group_decides_nothing(shared: Path, loaded: Forks) -> None:
    done = as_account(loaded, 4999, "approve", shared, group=4999)
    assert done.returncode in (3, 4)
    assert "Traceback" not in done.stderr
    assert Decisions.of(read_site(shared)).read() == ()
