"""A site that holds records out: none is trained on, no answer tells, and the share is for life."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from cloister.cli.main import run
from cloister.client.acceptance import accept
from cloister.client.held_out_terms import fix_terms, fixed_terms, held_out_of, terms_file
from cloister.client.moments import LEAST, Moments
from cloister.client.site_file import EXAMPLE, SiteFile, read_site
from cloister.data.records import Record
from cloister.deployment.flower.flower_tasks import Runtime
from cloister.deployment.site import opened_site
from cloister.deployment.site.agent import Agent
from cloister.deployment.site.backup import back_up
from cloister.deployment.site.doctor_data import describe
from cloister.deployment.site.doctor_study import study_checks
from cloister.deployment.site.open_ledger import begin_ledger
from cloister.deployment.site.records import SiteRecords
from cloister.deployment.site.restore import restore
from cloister.errors import BadFileError, RefusedError, UsageError
from cloister.ledger.unit_key import unit_key_file
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe
from tests.support.models import tiny_bert
from tests.support.neighbours import LABELS, RECORDS, study
from tests.support.studies import NOTES
from tests.support.wards import Ward

SHARE = "held_out_share = 0.5\n"


def rows(count: int = 60) -> list[dict[str, object]]:
    return [
        {"text": f"{NOTES[LABELS[i % 3]][i % 2]} {i}", "label": LABELS[i % 3], "person": f"p{i}"}
        for i in range(count)
    ]


def declared(ward: Ward, line: str = SHARE) -> None:
    """Writes the share into the ward's file, of 60 declared records."""
    path = ward.folder / "site.toml"
    text = path.read_text().replace("public_records = 40", "public_records = 60")
    path.write_text(text.replace("[records]", line + "[records]", 1))
    evaluates(ward)


def evaluates(ward: Ward) -> None:
    """Has the ward's policy accept private evaluations."""
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace("[accept]", "[accept]\nevaluations = true"))


def held_out_ward(folder: Path, base: Path, patch: pytest.MonkeyPatch, more: int = 0) -> Ward:
    """A ward with the share in its file, whose agent starts anew."""
    ward = Ward.open(folder, rows(60 + more), base, patch)
    declared(ward)
    again(ward)
    return ward


def again(ward: Ward) -> None:
    moments = Moments(ward.clock, ward._wait)
    ward.agent = Agent(ward.folder / "site.toml", cast(Runtime, None), moments)


def units_told(file: SiteFile, recipe: Recipe, records: SiteRecords) -> str:
    """What the doctor says of a study's units."""
    checks = study_checks(file, recipe, records)
    return next(one.detail for one in checks if one.name == "units")


def read_ledger(ward: Ward) -> bytes:
    return (ward.folder / "ward.ledger").read_bytes()


def asked(ward: Ward, recipe: Recipe) -> Status:
    answer = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert isinstance(answer.said[2], Status)
    return answer.said[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "bert")


def test_a_held_out_record_is_in_no_unit_and_changes_no_plan(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = study(base)
    seen: list[Record] = []
    real = opened_site.encode_units

    def noted(records: list[Record], *rest: object) -> object:
        seen.extend(records)
        return real(records, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(opened_site, "encode_units", noted)
    ward = held_out_ward(tmp_path / "ward", base, monkeypatch)
    before = read_site(ward.folder / "site.toml")
    records = ward.agent._sites.records.current
    soon = "· about 50 % will be held out of training (site.held_out_share), from the first study"
    for told in (describe(before, records)[0], units_told(before, recipe, records)):
        assert soon in told
    assert asked(ward, recipe) is Status.READY
    first = RoundRequest(recipe.digest(), 1, ward.adapter)
    assert ward.ask(recipe, first).said[2] is Status.TRAINED
    file = read_site(ward.folder / "site.toml")
    terms, chosen = fixed_terms(file), held_out_of(file)
    assert terms is not None
    assert chosen is not None
    assert (terms.share, terms.after) == (0.5, 0)  # nothing was charged before
    assert terms_file(file.ledger).stat().st_mode & 0o777 == 0o600
    every = ward.agent._sites.records.current
    apart = every.kept_apart(chosen).records
    assert 10 < len(apart) < 50  # a fair coin each, by a key of its own: outside once in 6 million
    assert not set(apart) & set(seen)
    assert {*apart, *seen} == set(every.records)
    admitted = ward.agent._sites.admitted
    assert admitted is not None
    assert len(admitted[1].site.units) == len(seen)
    for told in (describe(file, every)[0], units_told(file, recipe, every)):
        assert f"{len(apart)} records held out of training (site.held_out_share = 0.5)" in told
    # The plan, and so ε and every answer, is that of a site without a share.
    plain = replace(file, site=replace(file.site, held_out_share=None))
    assert accept(recipe, file) == accept(recipe, plain)
    # Another share for the same data is refused, and the agent serves no study with it.
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace(SHARE, ""))
    again(ward)
    assert asked(ward, recipe) is Status.REFUSED
    assert "none given, but this data set holds out 0.5" in ward.agent._folder.refusals()[-1]["why"]


def test_a_site_that_trains_on_a_held_out_record_is_found(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above, on a site whose records are not split."""
    monkeypatch.setattr(SiteRecords, "trained_on", lambda self, held_out: self)
    with pytest.raises(AssertionError):
        test_a_held_out_record_is_in_no_unit_and_changes_no_plan(tmp_path, base, monkeypatch)


def test_what_was_trained_before_the_share_was_declared_is_known(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = study(base)
    ward = Ward.open(tmp_path / "ward", rows(), base, monkeypatch)
    assert asked(ward, recipe) is Status.READY
    assert (
        ward.ask(recipe, RoundRequest(recipe.digest(), 1, ward.adapter)).said[2] is Status.TRAINED
    )
    declared(ward)
    again(ward)
    assert asked(ward, recipe) is Status.READY
    terms = fixed_terms(read_site(ward.folder / "site.toml"))
    assert terms is not None
    assert terms.after == 2  # a charge and its release


def small_site(folder: Path, share: str = "0.1", records: int = 600) -> Path:
    folder.mkdir(exist_ok=True)
    text = EXAMPLE.replace("public_records = 1200", f"public_records = {records}")
    text = text.replace("# held_out_share = 0.1 ", f"held_out_share = {share}")
    (folder / "site.toml").write_text(text)
    lines = [{"text": f"note {n}", "label": "cardiology"} for n in range(9)]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "site.toml"


def test_terms_are_refused_with_another_share_key_or_content(tmp_path: Path) -> None:
    file = read_site(small_site(tmp_path))
    assert held_out_of(file) is None
    first = fix_terms(file, 7)
    assert first is not None
    assert fix_terms(file, 9) == first == held_out_of(file)
    terms = fixed_terms(file)
    assert terms is not None
    assert terms.after == 7
    with pytest.raises(BadFileError, match=r"0\.2 given, .* holds out 0\.1 for its life"):
        fix_terms(read_site(small_site(tmp_path, "0.2")), 9)
    path = small_site(tmp_path)
    path.write_text(path.read_text().replace('"patient_id"', '"case_id"'))
    with pytest.raises(BadFileError, match=r"privacy\.person: 'case_id' given, .*'patient_id'"):
        held_out_of(read_site(path))
    file = read_site(small_site(tmp_path))
    place, key = terms_file(file.ledger), unit_key_file(file.ledger)
    kept = place.read_bytes()
    for content in (b"", b"[]", b'{"share":0.1}', kept.replace(b"0.1", b"7.0"), kept + b"x"):
        place.write_bytes(content)
        with pytest.raises(BadFileError, match="restore it from the site's backup"):
            held_out_of(file)
    place.write_bytes(kept)
    key.write_text("00" * 32)
    with pytest.raises(BadFileError, match="another key"):
        held_out_of(file)
    key.unlink()
    with pytest.raises(BadFileError, match="missing; restore"):
        fix_terms(file, 9)
    assert not key.exists()


def test_too_small_a_share_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"site\.held_out_share: 0\.1 of the declared 200 is 20"):
        read_site(small_site(tmp_path, records=200))


def test_a_backup_has_the_share_and_its_key(tmp_path: Path) -> None:
    file = read_site(small_site(tmp_path / "site"))
    begin_ledger(file)
    first = fix_terms(file, 0)
    done = back_up(file.path, tmp_path / "backup.tar")
    assert {"ledger.units.key", "ledger.held-out"} <= set(done.names)
    again = restore(tmp_path / "backup.tar", tmp_path / "again")
    assert held_out_of(again.file) == first


EVALUATED = ["privacy.evaluation_rounds=[1,3]", "privacy.evaluation_noise_multiplier=3.0"]


def test_an_agent_evaluates_on_its_held_out_records_and_its_answer_passes_the_last_check(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = study(base, *EVALUATED)
    ward = held_out_ward(tmp_path / "ward", base, monkeypatch)
    assert asked(ward, recipe) is Status.READY
    adapter, digest = ward.adapter, recipe.digest()
    assert ward.ask(recipe, RoundRequest(digest, 1, adapter)).said[2] is Status.TRAINED
    question = RoundRequest(digest, 1, adapter, Step.EVALUATE)
    begun = ward.clock.now
    found = ward.ask(recipe, question)
    left = ward.clock.now
    assert found.said[2] is Status.TRAINED
    assert dict(found.shapes) == {"statistics": (2 + 1 + 9 + 30,)}
    first = ward.reply
    admitted = ward.agent._sites.admitted
    assert admitted is not None
    assert admitted[1].evaluation_period >= LEAST
    assert left == pytest.approx(begun + admitted[1].evaluation_period)
    held_out = admitted[1].site.held_out
    assert held_out is not None
    assert len(admitted[1].site.units) + len(held_out) == 60
    again(ward)  # as after a restart
    assert ward.ask(recipe, question).said[2] is Status.TRAINED
    assert ward.reply == first
    assert ward.ask(recipe, RoundRequest(digest, 2, adapter, Step.EVALUATE)).said[2] is (
        Status.REFUSED
    )


def test_no_answer_to_an_evaluation_depends_on_records(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = study(base, *EVALUATED)
    digest, found = recipe.digest(), []
    # Of sixteen of each kind, some are held out.
    odd = [{**row, "person": f"{name} {n}"} for name, row in RECORDS.items() for n in range(16)]
    short = [row for row in odd if len(str(row["text"])) < 100]
    for name, more in (("plain", []), ("odd", short)):
        ward = Ward.open(tmp_path / name, [*rows(), *more], base, monkeypatch)
        declared(ward)
        again(ward)
        assert asked(ward, study(base)) is Status.READY
        assert asked(ward, recipe) is Status.READY
        times = [one for one in json.loads(ward.proofs.read_text()).values() if "scoring" in one]
        assert [one["scoring"] > 0 for one in times] == [False, True]
        begun = ward.clock.now
        seen = ward.ask(recipe, RoundRequest(digest, 1, ward.adapter, Step.EVALUATE))
        found.append((seen.said, seen.shapes, pytest.approx(ward.clock.now - begun)))
        assert ward.ask(recipe, RoundRequest(digest, 1, ward.adapter)).said[2] is Status.REFUSED
    assert found[0] == found[1]


def test_a_site_that_holds_nothing_out_takes_no_part_in_evaluated_studies(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = study(base, *EVALUATED)
    ward = Ward.open(tmp_path / "ward", rows(), base, monkeypatch)
    evaluates(ward)
    again(ward)
    assert asked(ward, recipe) is Status.REFUSED
    with pytest.raises(RefusedError, match=r"site\.held_out_share: the study evaluates"):
        accept(recipe, read_site(ward.folder / "site.toml"))


def test_a_share_held_out_for_home_permits_no_release_about_it(
    tmp_path: Path,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ward = held_out_ward(tmp_path / "ward", base, monkeypatch)
    path = ward.folder / "site.toml"
    asked_for = tmp_path / "study.toml"
    asked_for.write_text(study(base, *EVALUATED).to_toml(), encoding="utf-8")
    assert run(["site", "policy", "check", str(path), str(asked_for)]) == 0
    assert "statistics of the held-out units leave after round" in capsys.readouterr().out
    path.write_text(path.read_text().replace("evaluations = true\n", ""))
    again(ward)
    recipe = study(base, *EVALUATED)
    head = read_ledger(ward)
    assert asked(ward, recipe) is Status.REFUSED
    question = RoundRequest(recipe.digest(), 1, ward.adapter, Step.EVALUATE)
    assert ward.ask(recipe, question).said[2] is Status.REFUSED
    with pytest.raises(RefusedError, match=r"^accept\.evaluations: [^\n]*$"):
        accept(recipe, read_site(path))
    assert read_ledger(ward) == head
    assert asked(ward, study(base)) is Status.READY  # a study without evaluations is joined


def test_a_site_that_asks_for_more_evaluation_noise_refuses_with_the_reason(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = held_out_ward(tmp_path / "ward", base, monkeypatch)
    path = ward.folder / "site.toml"
    path.write_text(path.read_text().replace("[privacy]", "[privacy]\nmin_noise_multiplier = 4.0"))
    with pytest.raises(RefusedError, match=r"a larger privacy\.evaluation_noise_multiplier"):
        accept(study(base, *EVALUATED), read_site(path))
