"""Votes under shared noise: one secure sum, of which the coordinator sees the whole alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister.client import voting
from cloister.client.round import run_round
from cloister.client.secure import EpochKeys
from cloister.errors import RecipeError, RefusedError, UsageError
from cloister.export.synthetic_facts import read_facts
from cloister.ledger.stated import of_plan, of_plan_alone
from cloister.protocol.candidates import CandidateText, encode_candidates
from cloister.protocol.exchange import RoundRequest, Step
from cloister.recipe.vote_study import noise_of_a_count, read_vote_study
from cloister.synthesis.voted_records import synthesize_by_votes
from cloister.synthesis.voters import Voters, open_voters
from tests.support.models import tiny_llama
from tests.support.studies import NOTES, write_notes
from tests.synthesis.test_votes import PUBLIC, charges, study
from tests.tools.test_independent_verifier import verdicts

CANDIDATES = [CandidateText(text, label) for label in NOTES for text in PUBLIC[label]]
SHARED = (
    ("sites = 2\n", 'sites = 3\npartition = "iid"\n'),
    ("epsilon = 4.0", 'epsilon = 4.0\nnoise = "shared"\ncolluding_sites = 0'),
    ("rounds = 2", "rounds = 1"),
    ("epsilon = 4.0", "noise_multiplier = 2.0"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    place = tmp_path_factory.mktemp("shared-votes")
    write_notes(place / "train.jsonl", 60)
    rows = [{"text": t, "label": label} for label, texts in PUBLIC.items() for t in texts]
    (place / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_llama(place / "generator")
    (place / "base").symlink_to(bert)
    return place


@pytest.fixture(scope="module")
def voters(folder: Path) -> Voters:
    return open_voters(read_vote_study(study(folder, "one", *SHARED)), folder / "one-ledgers")


def test_the_sum_is_the_votes_with_the_plan_s_noise_around_them(voters: Voters) -> None:
    counted = voters.ask(1, CANDIDATES)
    plans = voters.plans
    (plan,) = {plan.digest(): plan for plan in plans.values()}.values()
    assert plan.sharing is not None
    # All of three sites are honest and there: the sum's noise is σ, and not √3 times as much.
    assert counted.noise == pytest.approx(plan.noise_multiplier, rel=1e-3)
    assert noise_of_a_count(plans) == counted.noise
    assert counted.sites == 3
    # 60 units vote; the sum over six counts is within six deviations: 2e-9.
    assert abs(counted.votes.sum() - 60) < 6 * counted.noise * np.sqrt(6)
    for path in voters.ledgers.values():
        (charge,) = charges(path)
        assert charge["release_kind"] == "vote"
        assert charge["event"]["noise_multiplier"] == plan.noise_multiplier
        assert charge["event"]["sample_rate"] == 1.0


def test_no_site_sends_counts_in_clear_and_none_that_its_plan_does_not_list(
    voters: Voters,
) -> None:
    admitted, digest = voters.admitted["site-1"], voters.study.digest
    body, head = encode_candidates(CANDIDATES), admitted.site.ledger.head
    for request, why in (
        (RoundRequest(digest, 1, b"", Step.VOTE, body), "in clear"),
        (RoundRequest(digest, 1, body), "lists votes alone"),
        (RoundRequest(digest, 2, body, Step.VOTE, b"[]"), "votes in round 2"),
    ):
        with pytest.raises(RefusedError, match=why):
            run_round(admitted, request, lambda: None)
    assert admitted.site.ledger.head == head


def test_a_round_that_is_asked_again_with_other_keys_is_spent_and_charged_once(
    voters: Voters,
) -> None:
    """As after a crash of all processes: keys are in memory only."""
    voters.ask(1, CANDIDATES)
    heads = {name: one.site.ledger.head for name, one in voters.admitted.items()}
    again = Voters(voters.study, voters.workspace, voters.admitted, voters.ledgers)
    for one in voters.admitted.values():
        assert isinstance(one.site.keys, EpochKeys)
        one.site.keys.terms = None
    counted = again.ask(1, CANDIDATES)
    assert (counted.sites, counted.received) == (0, ())
    assert not counted.votes.any()
    assert {name: one.site.ledger.head for name, one in voters.admitted.items()} == heads


def test_a_run_writes_records_whose_promise_both_verifiers_take(folder: Path) -> None:
    file = study(folder, "done", *SHARED)
    done = synthesize_by_votes(file, folder / "done.jsonl").file
    facts = read_facts(done)
    assert facts is not None
    (plan,) = set(read_vote_study(file).plans(("a", "b", "c")).values())
    assert set(facts.promises.values()) == {of_plan(plan)}
    assert set(facts.voted.values()) == {1}
    alone = of_plan_alone(plan)
    assert facts.alone == dict.fromkeys(facts.promises, alone)
    card = done.with_suffix(".README.md").read_text(encoding="utf-8")
    assert f"If all others work together: at most {alone}." in card
    place = folder / "done.votes" / "certificates"
    keys = json.loads((place / "keys.json").read_text())
    assert verdicts(place / "bundle.zip", keys) == (True, True)


def test_the_unmasked_sum_is_what_the_sites_computed_each_with_its_share(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a site computes is its counts and its share, and the unmasked sum is all of these."""
    seen: list[Any] = []
    real = voting.release_vote_share

    def noted(clipped: Any, noise: Any, entropy: Any) -> Any:
        seen.append((real(clipped, noise, entropy), clipped, noise))
        return seen[-1][0]

    monkeypatch.setattr(voting, "release_vote_share", noted)
    file = study(folder, "noted", *SHARED)
    opened = open_voters(read_vote_study(file), folder / "noted-ledgers")
    counted = opened.ask(1, CANDIDATES)
    # What is unmasked is exactly the sum of what the sites computed, and each share is there.
    steps = sum(one for one, _, _ in seen)
    assert (counted.votes == steps * seen[0][2].grid).all()
    for noised, clipped, noise in seen:
        drawn = noised - clipped.tensors[0].numpy()
        assert drawn.all()
        # Six values of deviation s: each is within seven deviations (1e-11).
        assert np.abs(drawn).max() < 7 * noise.share


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ([("colluding_sites = 0", "colluding_sites = 3")], RecipeError, "at least 3 sites are"),
        (
            [("colluding_sites = 0", "colluding_sites = 0\nsecure_bits = 16")],
            RecipeError,
            "secure_bits: 16 given",
        ),
        (
            [("public_records = 30", "public_records = [30, 30, 40]")],
            RecipeError,
            "with shared noise all sites have the same plan",
        ),
        ([("candidates = 6", "candidates = 200")], UsageError, "votes.candidates: 200 given"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_name(
    folder: Path, changes: list[tuple[str, str]], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        read_vote_study(study(folder, "bad", *SHARED, *changes))
