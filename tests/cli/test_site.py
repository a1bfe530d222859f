"""`cloister site` from an example file to a governed site, and with twelve planted faults."""

import io
import itertools
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.client.acceptance import accept
from cloister.client.site_file import EXAMPLE, FILL_IN, TEMPLATE, SiteConfig, read_site
from cloister.deployment.site import doctor, doctor_study
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.checks import CheckLevel
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.records import RecordSource
from cloister.errors import BudgetError, RecipeError
from cloister.ledger.charge import Charge, Released
from cloister.ledger.ledger import Ledger, key_file
from cloister.ledger.stated import of_plan
from cloister.models.base import weights_sha256
from cloister.privacy.accounting import epsilon
from cloister.privacy.plan import Plan
from cloister.recipe import read_recipe
from tests.support.approvals import standing
from tests.support.odd_paths import ODD_KINDS, odd_path
from tests.support.studies import NOTES, small_assignments, write_notes

RECORDS = f"""
[records]
task = "sequence-classification"
labels = {json.dumps(sorted(NOTES))}
"""
POLICY = """
[budget]
epsilon = 20.0
delta = 2e-5

[privacy]
max_grad_norm = 2.0

[accept]
tasks = ["sequence-classification"]
base_sha256 = ["{base}"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site's folder, ready for a study: site.toml, records, recipe, ledger begun."""
    assignments = dict(a.split("=", 1) for a in small_assignments(tmp_path))
    tables: dict[str, dict[str, object]] = {}
    for path, value in assignments.items():
        section, key = path.split(".")
        try:
            tables.setdefault(section, {})[key] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            tables.setdefault(section, {})[key] = value
    tables["task"]["labels"] = sorted(NOTES)
    tables["model"]["sha256"] = weights_sha256(tmp_path / "base")
    import tomli_w

    (tmp_path / "study.toml").write_text(tomli_w.dumps(tables))
    write_notes(tmp_path / "records.jsonl", 40, seed=5)
    site = '[site]\nname = "ward"\ndata = "records.jsonl"\npublic_records = 40\n'
    base = weights_sha256(tmp_path / "base")
    text = site + 'ledger = "ward.ledger"\n' + RECORDS + POLICY.format(base=base)
    (tmp_path / "site.toml").write_text(text)
    begin_ledger(read_site(tmp_path / "site.toml"))
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "site.toml").read_text()
    assert old in text
    (folder / "site.toml").write_text(text.replace(old, new))


def doctored(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    capsys.readouterr()
    code = run(["site", "doctor", str(folder / "site.toml"), str(folder / "study.toml"), "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(row["remedy"] for row in checks if row["level"] != "PASS")
    return code, {row["check"]: row["level"] for row in checks}


def blank_site(folder: Path, **values: str) -> Path:
    """A file as `site init` writes it, filled in by hand."""
    path = folder / "site.toml"
    assert run(["site", "init", str(path)]) == 0
    for key, value in values.items():
        text = path.read_text()
        assert f'{key} = "{FILL_IN}"' in text
        path.write_text(text.replace(f'{key} = "{FILL_IN}"', f"{key} = {value}", 1))
    return path


FILLED = {
    "name": '"ward"',
    "data": '"records.jsonl"',
    "public_records": "40",
    "labels": json.dumps(sorted(NOTES)),
    "epsilon": "8.0",
    "delta": "1e-5",
    "person": '"person"',
}


def test_a_new_file_begins_no_ledger_before_it_is_filled_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = blank_site(tmp_path)
    assert path.read_text() == TEMPLATE
    assert run(["site", "init", str(path), "--yes"]) == 2
    told = capsys.readouterr().err
    for key in (
        "site.name",
        "site.data",
        "site.public_records",
        "records.labels",
        "budget.epsilon",
        "budget.delta",
        "privacy.person",
    ):
        assert f"{key}: not filled in yet" in told
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left", FILLED)
def test_one_blank_is_enough_to_begin_nothing(left: str, tmp_path: Path) -> None:
    write_notes(tmp_path / "records.jsonl", 40)
    path = blank_site(tmp_path, **{key: FILLED[key] for key in FILLED if key != left})
    assert run(["site", "init", str(path), "--yes"]) == 2
    assert not list(tmp_path.glob("*.ledger*"))


def test_a_ledger_is_begun_from_data_that_can_be_read_and_once_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = blank_site(tmp_path, **FILLED)
    begin = ["site", "init", str(path)]
    assert run([*begin, "--yes"]) == 3  # no such file
    (tmp_path / "records.jsonl").write_text('{"text": "no label", "person": "p"}\n')
    assert run([*begin, "--yes"]) == 3  # no row fits
    assert "its one row does not fit what site.toml declares (row 1: no column 'label'; " in (
        capsys.readouterr().err
    )
    write_notes(tmp_path / "records.jsonl", 40)
    assert run(begin) == 2  # nobody to ask
    told = capsys.readouterr()
    assert "--yes" in told.err
    assert "ε = 8 at δ = 1e-05" in told.out
    assert "one person, identified by the column person" in told.out
    assert not (tmp_path / "records.ledger").exists()
    assert not key_file(tmp_path / "records.ledger").exists()
    assert run([*begin, "--yes"]) == 0
    assert "public key: " in capsys.readouterr().out
    ledger = Ledger(tmp_path / "records.ledger")
    assert (ledger.budget.epsilon, ledger.budget.delta, ledger.unit) == (8.0, 1e-5, "person")
    assert run(begin) == 0  # changes nothing, and asks nothing
    assert "begun before" in capsys.readouterr().out
    assert Ledger(tmp_path / "records.ledger").head == ledger.head
    assert run(["site", "init", str(tmp_path / "none" / "site.toml")]) == 3


@pytest.mark.parametrize(("typed", "code"), [("ward", 0), ("yes", 2)])
def test_at_a_terminal_the_name_is_typed(
    typed: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notes(tmp_path / "records.jsonl", 40)
    path = blank_site(tmp_path, **FILLED)
    monkeypatch.setattr("sys.stdin", Terminal(f"{typed}\n"))
    assert run(["site", "init", str(path)]) == code
    assert (tmp_path / "records.ledger").exists() is (code == 0)


class Terminal(io.StringIO):
    """Somebody's keyboard."""

    def isatty(self) -> bool:
        return True


CONTRADICTIONS = {
    "budget.epsilon": ("epsilon = 20.0", "epsilon = 30.0", "30.0", "20.0"),
    "a lower budget.epsilon": ("epsilon = 20.0", "epsilon = 10.0", "10.0", "20.0"),
    "budget.delta": ("delta = 2e-5", "delta = 1e-5", "1e-05", "2e-05"),
    "privacy.unit": (
        "max_grad_norm = 2.0",
        'max_grad_norm = 2.0\nunit = "person"\nperson = "person"',
        "person",
        "record",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("budget show", 3),
        ("budget forecast", 3),
        ("status", 3),
        ("start", 3),
        ("init", 3),
        ("doctor", 9),
        ("policy check", 3),
    ],
)
def test_a_file_that_contradicts_its_ledger_is_an_error_that_says_both(
    name: str, command: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, said, begun = CONTRADICTIONS[name]
    edit(folder, old, new)
    capsys.readouterr()
    study = [str(folder / "study.toml")] * (command == "policy check")
    assert run(["site", *command.split(), str(folder / "site.toml"), *study]) == code
    told = "".join(capsys.readouterr())
    assert name.split()[-1] in told
    assert "into the file again" in told
    assert f"{said} in the file" in told
    assert f"begun with {begun}" in told


def test_the_column_that_makes_the_units_is_the_ledger_s_for_life(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notes(tmp_path / "records.jsonl", 40)
    path = blank_site(tmp_path, **FILLED)
    assert run(["site", "init", str(path), "--yes"]) == 0
    assert Ledger(tmp_path / "records.ledger").person == "person"
    assert run(["ledger", "verify", str(tmp_path / "records.ledger")]) == 0
    edit(tmp_path, 'person = "person"', 'person = "site"')
    capsys.readouterr()
    for command in ("init", "budget show", "doctor"):
        assert run(["site", *command.split(), str(path)]) in (3, 9)
        told = "".join(capsys.readouterr())
        assert "privacy.person: site in the file, but the data set's ledger" in told
        assert 'write privacy.person = "person" into the file again' in told


def test_a_ledger_from_before_the_column_was_recorded_stays_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notes(tmp_path / "records.jsonl", 40)
    path = blank_site(tmp_path, **FILLED)
    file = read_site(path)
    old = Ledger.create(file.ledger, file.policy.lifetime, file.policy.privacy.unit)
    assert old.person is None
    assert run(["site", "init", str(path)]) == 0


@pytest.mark.parametrize("kind", ODD_KINDS)
@pytest.mark.parametrize("command", ["init --yes", "doctor", "reload"])
def test_data_that_are_no_file_are_refused_at_once_and_begin_nothing(
    kind: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = blank_site(tmp_path, **FILLED)
    odd_path(kind, tmp_path / "records.jsonl")
    verb, *options = command.split()
    capsys.readouterr()
    assert run(["site", verb, str(path), *options]) == (9 if verb == "doctor" else 3)
    told = "".join(capsys.readouterr())
    assert ODD_KINDS[kind] in told
    assert "site.data in site.toml" in told
    assert not list(tmp_path.glob("*.ledger*"))


def test_before_the_ledger_is_begun_one_line_of_the_doctor_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notes(tmp_path / "records.jsonl", 40)
    path = blank_site(tmp_path, **FILLED)
    capsys.readouterr()
    assert run(["site", "doctor", str(path), "--json"]) == 9
    checks = {row["check"]: row for row in json.loads(capsys.readouterr().out)["checks"]}
    assert [name for name, row in checks.items() if row["level"] == "FAIL"] == ["ledger"]
    assert checks["ledger"]["remedy"] == f"cloister site init {path} begins it"
    assert not {"key", "clock"} & set(checks)
    assert not list(tmp_path.glob("*.ledger*"))


@pytest.mark.parametrize("column", ["nope", "text-less"])
def test_a_column_that_tells_no_person_apart_begins_nothing(
    column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notes(tmp_path / "records.jsonl", 40)
    path = blank_site(tmp_path, **FILLED | {"person": json.dumps(column)})
    capsys.readouterr()
    assert run(["site", "init", str(path), "--yes"]) == 3
    assert f"row 1: no column '{column}'" in capsys.readouterr().err
    assert run(["site", "doctor", str(path)]) == 9
    assert "each a privacy unit" not in capsys.readouterr().out
    assert not list(tmp_path.glob("*.ledger*"))


def test_what_is_seldom_meant_shows_before_the_ledger_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "pain", "label": min(NOTES), "person": p} for p in ["NA"] * 30 + ["p", "q"]]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = blank_site(tmp_path, **FILLED | {"delta": "0.01"})
    capsys.readouterr()
    assert run(["site", "init", str(path)]) == 2  # nobody to ask
    told = capsys.readouterr().out
    assert "32 records of 3 persons (privacy units); the largest has 30" in told
    assert "'NA' holds 30 of 32 records" in told
    assert "40 are declared" in told
    assert "budget.delta = 0.01 is above 1/(10 × site.public_records) = 0.0025" in told
    assert "at most 0.001" in told
    assert not list(tmp_path.glob("*.ledger*"))


def test_a_study_is_priced_against_the_ledger(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["site", "policy", "check", str(folder / "site.toml"), str(folder / "study.toml")]
    assert run([*check, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ledger_begun"] is True
    for path in folder.glob("ward.ledger*"):
        path.unlink()
    assert run(check) == 0  # priced all the same
    told = capsys.readouterr().out
    assert "ward joins: ε = 7.9" in told
    assert "ledger is not begun yet" in told
    assert not list(folder.glob("ward.ledger*"))
    edit(folder, "epsilon = 20.0", "epsilon = 8.0")
    begin_ledger(file := read_site(folder / "site.toml"))
    ledger, plan = Ledger(file.ledger), accept(read_recipe(folder / "study.toml"), file)
    with pytest.raises(BudgetError):
        spend(ledger, plan)
    assert run(check) == 5
    assert doctored(folder, capsys)[1]["policy"] == "FAIL"


def spend(ledger: Ledger, plan: Plan) -> None:
    """Charges rounds of a study for as long as the budget covers them."""
    for number in itertools.count(1):
        ledger.reserve(Charge(study="another", round=number, plan=plan, request="r"))


SIZES = {
    "site.public_records": ("public_records = 40", "public_records = 9_000_000_000"),
    "budget.epsilon": ("epsilon = 20.0", "epsilon = 501.0"),
    "a finite budget.epsilon": ("epsilon = 20.0", "epsilon = 1e300"),
    "budget.delta": ("delta = 2e-5", "delta = 1.0"),
    "accept.max_rounds": ("[accept]", "[accept]\nmax_rounds = 1_000_000_000"),
    "accept.max_local_steps": ("[accept]", "[accept]\nmax_local_steps = 1_000_000_000"),
    "accept.max_length": ("[accept]", "[accept]\nmax_length = 1_000_000_000"),
    "accept.max_message_bytes": ("[accept]", "[accept]\nmax_message_bytes = 1_000_000_000_000"),
    "accept.max_adapter_value": ("[accept]", "[accept]\nmax_adapter_value = 1e30"),
    "site.rank": ("public_records = 40", "public_records = 40\nrank = 1_000_000_000"),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_number_of_a_site_has_an_end(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, *SIZES[name])
    assert run(["site", "policy", "show", str(folder / "site.toml")]) == 2
    assert f"{name.split()[-1]}: " in (told := capsys.readouterr().err)
    assert "needed" in told


def test_the_example_shows_every_key_of_a_site() -> None:
    import dataclasses

    shown = EXAMPLE.replace("# ", "")
    alike = ("text_b", "label", "tokens", "tags", "messages", "labels", "score", "items")
    for field in dataclasses.fields(SiteConfig):
        if field.name not in alike:
            assert f"\n{field.name} = " in shown


def test_a_healthy_site_passes_every_check(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, levels = doctored(folder, capsys)
    assert code == 0
    assert len(levels) >= 16
    assert set(levels.values()) <= {"PASS", "WARN"}
    assert run(["site", "doctor", str(folder / "site.toml")]) == 0
    told = capsys.readouterr().out
    assert "PASS" in told
    assert "40 records, each a privacy unit (never sent)" in told
    assert "base model" not in told  # of a study, and none was given


def wrong_hash(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, weights_sha256(folder / "base"), "0" * 64)


def other_base(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, 'name = "ward"\n', 'name = "ward"\nmodel = "nowhere"\n')


def missing_data(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "records.jsonl").unlink()


def cut_data(folder: Path, patch: pytest.MonkeyPatch) -> None:
    text = (folder / "records.jsonl").read_text()
    (folder / "records.jsonl").write_text(text[:-20])


def other_columns(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, 'name = "ward"\n', 'name = "ward"\ntext = "note"\n')


def other_labels(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, RECORDS, RECORDS.replace("ology", "o"))


def lacking_label(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, 'labels = ["', 'labels = ["rare", "')


def open_key(folder: Path, patch: pytest.MonkeyPatch) -> None:
    key_file(folder / "ward.ledger").chmod(0o644)


def missing_ledger(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "ward.ledger").rename(folder / "gone")


def cut_ledger(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "ward.ledger").write_bytes((folder / "ward.ledger").read_bytes()[:2000])


def lowered_budget(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, "epsilon = 20.0", "epsilon = 1.0")


def little_noise_asked(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, "delta = 2e-5\n", "delta = 2e-5\nstudy_epsilon = 0.5\n")


def other_task(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit(folder, 'tasks = ["sequence-classification"]', 'tasks = ["causal-lm"]')


def full_disk(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doctor, "FREE_BYTES", 2**80)


def network_disk(folder: Path, patch: pytest.MonkeyPatch) -> None:
    from cloister.errors import LedgerError

    def refuse(path: Path) -> None:
        raise LedgerError(f"{path}: on a network file system; keep it on a local disk")

    patch.setattr(doctor, "refuse_network_file_system", refuse)


def missing_package(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doctor.metadata, "requires", lambda name: ["torch>=99", "nothing-like-it"])


def old_sqlite(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doctor.apsw, "sqlite_lib_version", lambda: "3.40.1")


def broken_gradients(folder: Path, patch: pytest.MonkeyPatch) -> None:
    total = doctor_study.clipped_gradient_sum

    def doubled(*args: object) -> object:
        found = total(*args)  # type: ignore[arg-type]
        return found + found

    patch.setattr(doctor_study, "clipped_gradient_sum", doubled)


def lossy_adapters(folder: Path, patch: pytest.MonkeyPatch) -> None:
    read = doctor_study.read_adapter
    patch.setattr(doctor_study, "read_adapter", lambda network: read(network).scale(0.5))


FAULTS: dict[str, list[Callable[[Path, pytest.MonkeyPatch], None]]] = {
    "base model": [other_base],
    "data": [missing_data, cut_data, other_columns],
    "key": [open_key],
    "ledger": [missing_ledger, cut_ledger, lowered_budget],
    "policy": [little_noise_asked, other_task, wrong_hash, other_labels, lacking_label],
    "disk space": [full_disk],
    "file system": [network_disk],
    "packages": [missing_package],
    "sqlite": [old_sqlite],
    "noiseless parity": [broken_gradients],
    "reload": [lossy_adapters],
}


@pytest.mark.parametrize(
    ("check", "fault"),
    [(c, f) for c, faults in FAULTS.items() for f in faults],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_planted_fault_is_found_by_its_check(
    folder: Path,
    check: str,
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault(folder, monkeypatch)
    code, levels = doctored(folder, capsys)
    assert code == 9
    assert levels[check] == "FAIL"


def test_a_declared_size_far_from_the_true_one_is_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "public_records = 40", "public_records = 400")
    code, levels = doctored(folder, capsys)
    assert (code, levels["data"]) == (0, "WARN")


def test_the_doctor_fails_without_the_data_whether_or_not_a_study_is_given(folder: Path) -> None:
    site, study = str(folder / "site.toml"), str(folder / "study.toml")
    (folder / "records.jsonl").unlink()
    assert run(["site", "doctor", site]) == 9
    assert run(["site", "doctor", site, study]) == 9


def test_rows_that_do_not_fit_are_counted_and_named_at_home(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "records.jsonl").open("a") as file:
        file.write(
            '{"text": "a", "label": "rare"}\n{"label": "rare"}\n\n{"text": "b", "label": "rare"}'
        )
    code, levels = doctored(folder, capsys)
    assert (code, levels["data"], levels["units"]) == (0, "WARN", "PASS")
    assert run(["site", "doctor", str(folder / "site.toml")]) == 0
    told = capsys.readouterr().out
    assert "40 records" in told
    assert "2 rows are left out: its label is not among records.labels (row 41, 44)" in told
    assert "1 row is left out: no column 'text'; set site.text in site.toml" in told


def test_what_a_policy_tightens_is_shown_with_its_consequence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study left at its default unit, at a site that hides persons: three of four are unused."""
    edit(folder, "max_grad_norm = 2.0", 'max_grad_norm = 2.0\nunit = "person"\nperson = "person"')
    edit(folder, "public_records = 40", "public_records = 10")
    for path in folder.glob("ward.ledger*"):
        path.unlink()
    site, study = str(folder / "site.toml"), str(folder / "study.toml")
    assert run(["site", "init", site, "--yes"]) == 0
    capsys.readouterr()
    assert run(["site", "policy", "check", site, study]) == 0
    told = capsys.readouterr().out
    assert "unit: record asked, person by this site's policy: " in told
    assert "max_records = 1" in told
    assert "never used" in told
    assert run(["site", "policy", "check", site, study, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tightened"]["unit"] == ["record", "person"]
    assert document["max_records"] == 1
    said = {change["field"]: change["consequence"] for change in document["changes"]}
    assert "never used" in said["unit"]
    assert run(["site", "policy", "show", site]) == 0
    assert "only one record of each person is used" in capsys.readouterr().out
    assert run(["site", "doctor", site, study]) == 0
    told = capsys.readouterr().out
    assert "40 records of 10 persons (privacy units); the largest has 4" in told
    assert "10 persons with 10 records to learn from" in told
    assert "30 of 40 records can never be used (max_records = 1 of a person)" in told
    assert "unit: record asked, person by this site's policy" in told


def test_a_changed_file_is_named_and_taken_at_a_reload(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = read_site(folder / "site.toml")
    agent, source = AgentFolder.of(file), RecordSource(file)
    agent.own.mkdir(parents=True)
    agent.note_records(source.document())
    status = ["site", "status", str(file.path)]
    assert run(status) == 0
    assert "site reload" not in capsys.readouterr().out
    write_notes(file.data, 20)
    assert run(status) == 0
    assert f"cloister site reload {file.path} reads it again" in capsys.readouterr().out
    assert len(source.current.records) == 40
    assert run(["site", "reload", str(file.path)]) == 0
    told = capsys.readouterr().out
    assert "20 records fit" in told
    assert "is not running" in told
    assert not agent.take_reload()
    agent.service.write_text(json.dumps({"pid": os.getpid(), "children": {}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloister.deployment.site.agent_folder.is_cloister", lambda pid: True)
        assert run(["site", "reload", str(file.path)]) == 0
    assert agent.take_reload()
    assert not agent.take_reload()
    file.data.unlink()
    assert run(["site", "reload", str(file.path)]) == 3


def test_a_study_is_priced_and_tightened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site, study = str(folder / "site.toml"), str(folder / "study.toml")
    assert run(["site", "policy", "check", site, study]) == 0
    told = capsys.readouterr().out
    assert "ward joins: ε = 7.9" in told
    assert "promised for the whole plan, however early it stops" in told
    edit(folder, "max_grad_norm = 2.0", "max_grad_norm = 0.5\nmin_noise_multiplier = 3.0")
    assert run(["site", "policy", "check", site, study, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tightened"]["max_grad_norm"] == [1.0, 0.5]
    assert document["tightened"]["noise_multiplier"][1] == 3.0
    assert document["promise"]["epsilon"] < 2
    edit(folder, 'tasks = ["sequence-classification"]', 'tasks = ["causal-lm"]')
    assert run(["site", "policy", "check", site, study]) == 4
    assert "accept.tasks" in capsys.readouterr().err


def test_a_check_says_how_long_the_longest_message_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["site", "policy", "check", str(folder / "site.toml"), str(folder / "study.toml")]
    assert run(command) == 0
    assert "--exact loads the base" in capsys.readouterr().out
    assert run([*command, "--exact", "--json"]) == 0
    needed = json.loads(capsys.readouterr().out)["message_bytes"]
    edit(folder, "[accept]", f"[accept]\nmax_message_bytes = {needed - 1}")
    assert run([*command, "--exact"]) == 4
    assert f"set accept.max_message_bytes = {needed} in site.toml" in capsys.readouterr().err
    edit(folder, f"max_message_bytes = {needed - 1}", f"max_message_bytes = {needed}")
    assert run([*command, "--exact"]) == 0
    assert f"Its longest message has {needed:,} bytes" in capsys.readouterr().out


def test_the_doctor_says_what_the_site_computes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("cloister.models.device.DRIVERS", ())
    file = read_site(folder / "site.toml")
    auto = next(row for row in doctor.examine(file, None) if row.name == "device")
    assert (auto.level, auto.detail) == (CheckLevel.PASS, "cpu, chosen by machine.device = auto")
    monkeypatch.setattr("cloister.models.device.DRIVERS", (folder,))
    beside = next(row for row in doctor.examine(file, None) if row.name == "device")
    assert beside.level is CheckLevel.WARN
    edit(folder, "[accept]", '[machine]\ndevice = "cuda"\n\n[accept]')
    asked = read_site(folder / "site.toml")
    missing = next(row for row in doctor.examine(asked, None) if row.name == "device")
    assert missing.level is CheckLevel.FAIL
    assert "finds no usable CUDA GPU here" in missing.detail
    assert "the CPU is not used instead" in missing.remedy


def test_the_policy_is_said_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["site", "policy", "show", str(folder / "site.toml")]) == 0
    told = capsys.readouterr().out
    assert "ε = 20 at δ = 2e-05 for one record" in told
    assert "only these words may leave" in told


def test_the_budget_is_shown_and_foreseen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cloister.deployment.site.opened_site import open_for_study
    from cloister.deployment.site.records import read_records
    from cloister.recipe import read_recipe

    site = str(folder / "site.toml")
    assert run(["site", "budget", "forecast", site]) == 0
    assert "nothing was charged yet" in capsys.readouterr().out
    edit(folder, 'ledger = "ward', 'model = "base"\nledger = "ward')
    base = weights_sha256(folder / "base")
    with (folder / "site.toml").open("a") as text:
        text.write(standing(base))
    file = read_site(folder / "site.toml")
    recipe = read_recipe(folder / "study.toml", [f"model.sha256='{base}'"])
    own = open_for_study(file, recipe, read_records(file))
    granted = own.site.ledger.reserve(
        Charge(study=own.site.study, round=1, plan=own.plan, request="r")
    )
    assert not isinstance(granted, Released)
    granted.release(b"bytes")
    assert run(["site", "budget", "show", site, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["rounds"], facts["releases"], facts["budget"]["epsilon"]) == (1, 1, 20.0)
    assert facts["promise"] == of_plan(own.plan).to_json()
    # What is set beside the cap is at one δ with it: half of the budget's, as its rule counts.
    assert (facts["used"]["delta"], facts["budget"]["delta"]) == (1e-5, 2e-5)
    assert facts["used"]["epsilon"] == epsilon([own.plan.event(own.plan.local_steps)], 1e-5)
    assert facts["used"]["is_promise"] is False
    assert facts["delta_then"] == facts["used"]["delta"]
    capsys.readouterr()
    assert facts["rounds_left"] >= own.plan.num_rounds - 1
    assert run(["site", "budget", "forecast", site]) == 0
    assert "rounds of the plan charged last. With all of it used" in capsys.readouterr().out
    assert run(["site", "budget", "show", site]) == 0
    told = capsys.readouterr().out
    assert "promised for the whole plan, however early it stops" in told
    assert "of the budget's 20, both at δ = 1e-05" in told
    assert "an indication, not a promise" in told
    assert run(["site", "status", site]) == 0
    assert "of the budget's 20, both at δ = 1e-05" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("", "site: missing"),
        ('[site]\nname = "x"\n', "site.data: missing"),
        ('[site]\nname = ""\ndata = "d"\npublic_records = 3\nledger = "l"\n', "site.name: empty"),
        ('[site]\nname = "a/b"\ndata = "d"\npublic_records = 3\nledger = "l"\n', "site.name"),
        ('[site]\nname = "x"\ndata = "d"\npublic_records = 0\nledger = "l"\n', "public_records"),
        ('[site]\nname = "x"\ndata = "d"\npublic_records = 3\nledger = "l"\nextra = 1\n', "extra"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, change: str, word: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(change + POLICY.format(base="0" * 64))
    with pytest.raises(RecipeError, match=word):
        read_site(path)


def test_a_missing_or_garbled_file(tmp_path: Path) -> None:
    assert run(["site", "doctor", str(tmp_path / "none.toml")]) == 3
    (tmp_path / "site.toml").write_text("[[[")
    assert run(["site", "policy", "show", str(tmp_path / "site.toml")]) == 3
    (tmp_path / "site.toml").write_bytes(os.urandom(100))
    assert run(["site", "budget", "show", str(tmp_path / "site.toml")]) == 3


def test_a_ledger_that_was_not_begun_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, 'ledger = "ward.ledger"', 'ledger = "other.ledger"')
    assert run(["site", "budget", "show", str(folder / "site.toml")]) == 6
    assert "cloister site init" in capsys.readouterr().err


def test_overlap_counts_own_records_in_a_public_file_and_prints_none_of_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [json.loads(row)["text"] for row in (folder / "records.jsonl").read_text().splitlines()]
    texts = [NOTES["cardiology"][1], "a text that nobody has written before"]
    public = folder / "public.jsonl"
    public.write_text("".join(json.dumps({"text": t, "label": "cardiology"}) + "\n" for t in texts))
    command = ["site", "overlap", str(folder / "site.toml"), str(public)]
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["exact"], found["records"]) == (own.count(texts[0]), 40)
    assert run(command) == 0
    told = capsys.readouterr().out
    assert f"{found['exact'] + found['near']} of your 40 records" in told
    assert texts[0] not in told
    assert run([*command[:3], str(folder / "none.jsonl")]) == 3
