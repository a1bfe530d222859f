"""A deployed site in a study of votes: its switch, its operator's text, its charges and answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from cloister.cli.main import run
from cloister.client import voting
from cloister.client.moments import Moments
from cloister.client.site_file import read_site
from cloister.client.terms import accepted_terms
from cloister.deployment.flower.flower_tasks import Runtime
from cloister.deployment.site.agent import Agent
from cloister.deployment.site.doctor_study import study_checks
from cloister.deployment.site.study_text import facts_of, in_words
from cloister.evidence.certificate_alone import check_alone, to_bytes
from cloister.ledger.storage import LedgerFile
from cloister.models.base import weights_sha256
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe
from cloister.recipe.vote_study import read_vote_study
from tests.support.models import tiny_bert
from tests.support.neighbours import LABELS, notes
from tests.support.studies import NOTES
from tests.support.wards import Ward

TEXTS = [CandidateText(NOTES[label][at], label) for label in LABELS for at in (0, 1)]
BODY = encode_candidates(TEXTS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "bert")


def votes_study(folder: Path, base: Path, noise: float = 2.0) -> Recipe:
    path = folder / "study.toml"
    path.write_text(
        f"""
[study]
name = "reviews"
[model]
base = "{base}"
sha256 = "{weights_sha256(base)}"
[task]
labels = {json.dumps(LABELS)}
max_length = 16
[privacy]
noise_multiplier = {noise}
[votes]
public = "public.jsonl"
candidates = {len(TEXTS)}
rounds = 2
generator = "some-model"
"""
    )
    return read_vote_study(path, (40,)).recipe


def opened(folder: Path, base: Path, patch: pytest.MonkeyPatch, *, accepts: bool = True) -> Ward:
    """A ward whose policy and standing approval let votes in, as far as `accepts` says."""
    ward = Ward.open(folder, notes(), base, patch)
    path = ward.folder / "site.toml"
    text = path.read_text().replace("votes = false", "votes = true")
    if accepts:
        text = text.replace("[accept]", "[accept]\nvotes = true")
    path.write_text(text)
    again(ward)
    return ward


def again(ward: Ward) -> None:
    """As after a restart of the site."""
    moments = Moments(ward.clock, ward._wait)
    ward.agent = Agent(ward.folder / "site.toml", cast(Runtime, None), moments)


def charges(ward: Ward) -> list[tuple[int, str]]:
    fields = [entry.fields for entry in LedgerFile(ward.folder / "ward.ledger").entries()]
    return [(one["round"], one["release_kind"]) for one in fields if one["kind"] == "reserve"]


def test_a_site_votes_charges_each_round_once_and_certifies_it(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = votes_study(tmp_path, base)
    study = recipe.digest()
    ward = opened(tmp_path / "ward", base, monkeypatch)
    assert ward.ask(recipe, RoundRequest(study, 0, b"", Step.PREPARE)).said[2] is Status.READY
    assert charges(ward) == []
    question = RoundRequest(study, 1, b"", Step.VOTE, BODY)
    first = ward.ask(recipe, question)
    assert first.said[2] is Status.TRAINED
    assert first.shapes == (("votes", (len(TEXTS),)),)
    sent = ward.reply
    # Asked again, also after a restart: the same bytes, and no second charge.
    assert ward.ask(recipe, question).said[2] is Status.TRAINED
    assert ward.reply == sent
    again(ward)
    assert ward.ask(recipe, question).said[2] is Status.TRAINED
    assert ward.reply == sent
    assert charges(ward) == [(1, "vote")]
    # Another question in the place of the first, and what the plan does not list.
    other = replace(question, body=encode_candidates(list(reversed(TEXTS))))
    for asked in (
        other,
        replace(question, round=3),
        replace(question, step=Step.MASK, adapter=BODY),
        RoundRequest(study, 2, BODY),
        replace(question, round=2, body=b"[]"),
    ):
        assert ward.ask(recipe, asked).said[2] is Status.REFUSED
    assert charges(ward) == [(1, "vote")]
    # An error after the charge: the round stays spent, also when it is asked again.
    with monkeypatch.context() as patch:
        patch.setattr(voting, "release_votes", lambda *_: 1 / 0)
        assert ward.ask(recipe, replace(question, round=2)).said[2] is Status.SPENT
    assert ward.ask(recipe, replace(question, round=2)).said[2] is Status.SPENT
    assert charges(ward) == [(1, "vote"), (2, "vote")]
    admitted = ward.agent._sites.admitted
    assert admitted is not None
    ledger = admitted[1].site.ledger
    certificate = to_bytes(ledger.certificate(study, site="ward", base="ab" * 32))
    fields = check_alone(certificate, site="ward", study=study, key=ledger.public_key, most_steps=2)
    assert fields["votes"] == [{"round": 1, "released": True}, {"round": 2, "released": False}]


def test_a_site_that_does_not_accept_votes_refuses_before_anything_is_charged(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = votes_study(tmp_path, base)
    ward = opened(tmp_path / "ward", base, monkeypatch, accepts=False)
    seen = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert seen.said[2] is Status.REFUSED
    assert "accept.votes" in ward.agent._folder.refusals()[-1]["why"]
    assert charges(ward) == []


def test_a_standing_approval_that_names_no_votes_lets_none_in(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = votes_study(tmp_path, base)
    ward = opened(tmp_path / "ward", base, monkeypatch)
    path = ward.folder / "site.toml"
    head, tail = path.read_text().split("[[approvals.standing]]")
    path.write_text(head + "[[approvals.standing]]" + tail.replace("votes = true", "votes = false"))
    again(ward)
    seen = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert seen.said[2] is Status.UNAPPROVED


def test_the_text_for_the_operator_says_what_votes_are(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = votes_study(tmp_path, base)
    ward = opened(tmp_path / "ward", base, monkeypatch)
    file = read_site(ward.folder / "site.toml")
    facts = facts_of(accepted_terms(file, recipe))
    told = "\n".join(in_words(facts))
    assert "trains     nothing: its records vote" in told
    for words in ("nearest of 6 public candidate texts", "public.jsonl", "varied by some-model"):
        assert words in told
    assert "all of this study fits" in told
    assert "length     2 rounds of votes" in told
    assert f"at most {facts['most_bytes_a_round']:,} bytes in a round" in told
    assert facts["most_bytes_a_round"] < 1000
    checks = {
        one.name: one for one in study_checks(file, recipe, ward.agent._sites.records.current)
    }
    assert "8 of 8 records" in checks["votes"].detail
    assert "may vote, each record once" in checks["units"].detail


def test_the_policy_s_check_says_that_records_vote(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    votes_study(tmp_path, base)
    ward = opened(tmp_path / "ward", base, monkeypatch)
    study = (tmp_path / "study.toml").read_text() + "[data]\nsites = 1\npublic_records = 40\n"
    (tmp_path / "study.toml").write_text(study)
    given = [str(ward.folder / "site.toml"), str(tmp_path / "study.toml")]
    assert run(["site", "policy", "check", *given, "--exact"]) == 0
    told = capsys.readouterr().out
    assert "It is 2 rounds of votes." in told
    assert "every record votes for one of 6 public texts" in told
    assert "Its longest message has 1" in told
    assert run(["site", "policy", "check", *given]) == 0  # counts have the bytes of no base
    assert capsys.readouterr().out == told


def test_less_noise_than_the_policy_demands_is_refused_and_not_made_more(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator's threshold counts on the noise that the study states."""
    recipe = votes_study(tmp_path, base, noise=0.5)
    ward = opened(tmp_path / "ward", base, monkeypatch)
    seen = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    assert seen.said[2] is Status.REFUSED
    assert "privacy.min_noise_multiplier: votes" in ward.agent._folder.refusals()[-1]["why"]
