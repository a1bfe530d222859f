"""A deployed site proves its per-record gradients before it answers that it takes part."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import DebertaV2Config, DebertaV2Model

from cloister.client import measured_times, proving
from cloister.client.measured_times import SPREAD, Times
from cloister.client.moments import period_of
from cloister.client.site_file import read_site
from cloister.data.records import TextRecord
from cloister.deployment.site.opened_site import _periods
from cloister.errors import RefusedError
from cloister.ledger.ledger import Ledger
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe
from cloister.tasks.cut import most_characters
from cloister.tasks.sequence import SequenceClassification
from cloister.tasks.task import Example
from cloister.training import frozen_caches
from tests.client.test_differential import notes, study
from tests.support.models import VOCABULARY, _save, tiny_bert
from tests.support.wards import Seen, Ward


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("ward"))


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Relative positions, to which query and key projections are applied for the whole batch."""
    config = DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        relative_attention=True,
        position_buckets=8,
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        initializer_range=0.5,
    )
    return _save(tmp_path_factory.mktemp("deberta"), DebertaV2Model, config, 0, frame=True)


def ward(folder: Path, base: Path, patch: pytest.MonkeyPatch) -> Ward:
    return Ward.open(folder, notes(), base, patch, proves=True)


def prepare(one: Ward, recipe: Recipe) -> Seen:
    return one.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))


def why(one: Ward) -> str:
    return str(one.agent._folder.refusals()[-1]["why"])


def test_what_the_batch_shares_is_refused_at_the_site_and_nothing_is_charged(
    deberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unit's influence was up to 2.06 C; the policy had nothing against it."""
    one = ward(tmp_path / "ward", deberta, monkeypatch)
    recipe = study(deberta, 'lora.target_modules=["query_proj", "key_proj"]')
    assert prepare(one, recipe).said[2] is Status.REFUSED
    assert "preflight: " in why(one)
    asked = one.ask(recipe, RoundRequest(recipe.digest(), 1, b"adapter"))
    assert asked.said[2] is Status.REFUSED
    assert Ledger(read_site(one.folder / "site.toml").ledger).head.seq == 0


def test_known_unsoundness_is_refused_by_name(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ward(tmp_path / "ward", bert, monkeypatch)
    assert prepare(one, study(bert, "lora.use_dora=true")).said[2] is Status.REFUSED
    assert "DoRA" in why(one)


def test_a_proof_is_made_once_and_made_again_where_it_is_damaged(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def counted(name: str) -> None:
        made = getattr(proving, name)

        def noting(*given: object, **named: object) -> object:
            tried.append(name)
            return made(*given, **named)

        monkeypatch.setattr(proving, name, noting)

    counted("prove")
    counted("measured_times")
    recipe, place = study(bert), tmp_path / "ward"
    one = ward(place, bert, monkeypatch)
    kinds = type(one.agent), one.agent.path, one.agent.runtime, one.agent.moments
    for times, content in ((1, None), (1, None), (2, "{"), (3, '{"key": 1}'), (4, "[]")):
        if content is not None:
            one.proofs.write_text(content)
        one.agent = kinds[0](*kinds[1:])  # as after a restart
        assert prepare(one, recipe).said[2] is Status.READY
        assert tried == ["prove", "measured_times"] * times
    kept = json.loads(one.proofs.read_text())
    assert len(kept) == 2
    one.proofs.write_text(json.dumps({key: {"shapes": 1} for key in kept}))
    one.agent = kinds[0](*kinds[1:])
    assert prepare(one, recipe).said[2] is Status.READY
    assert len(tried) == 10
    # A sound proof of something else, in the place of this one.
    kept = json.loads(one.proofs.read_text())
    moved = {
        key: {**value, "key": "0" * 64} if "key" in value else value for key, value in kept.items()
    }
    one.proofs.write_text(json.dumps(moved))
    one.agent = kinds[0](*kinds[1:])
    assert prepare(one, recipe).said[2] is Status.READY
    assert tried[10:] == ["prove"]
    other = replace(recipe, lora=replace(recipe.lora, r=2))
    assert prepare(one, other).said[2] is Status.READY
    assert len(tried) == 13


def test_a_proof_leaves_nothing_among_the_states_that_studies_share(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what an earlier study kept, a step would be timed without its lower layers."""
    one = ward(tmp_path / "ward", bert, monkeypatch)
    path = one.folder / "site.toml"
    path.write_text(path.read_text() + "\n[machine]\nfrozen_cache_gib = 1.0\n")
    frozen_caches._kept.cache_clear()
    assert prepare(one, study(bert, "lora.top_layers=1")).said[2] is Status.READY
    admitted = one.agent._sites.admitted
    assert admitted is not None
    prefix = admitted[1].workspace.network.prefix
    assert prefix is not None
    assert prefix._kept._states == {}


def test_what_encoding_takes_is_measured_on_the_largest_record_of_the_slowest_kind(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ward(tmp_path / "ward", bert, monkeypatch)
    taken: list[str] = []
    encode = SequenceClassification.encode

    def slow(self: SequenceClassification, record: TextRecord) -> Example:
        taken.append(record.text)
        one.clock.now += 10.0 if len(record.text.split()) == 1 else 1.0
        return encode(self, record)

    monkeypatch.setattr(SequenceClassification, "encode", slow)
    assert prepare(one, study(bert)).said[2] is Status.READY
    assert max(map(len, taken)) == most_characters(16)
    kept = json.loads(one.proofs.read_text()).values()
    assert [round(entry["encoding"]) for entry in kept if "encoding" in entry] == [10]


def test_a_full_disk_keeps_no_proof_and_no_site_out(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    one = ward(tmp_path / "ward", bert, monkeypatch)
    monkeypatch.setattr(proving, "write_whole", full)
    assert prepare(one, study(bert)).said[2] is Status.READY
    assert not one.proofs.exists()


def test_a_round_that_would_be_ended_before_it_is_done_is_refused_before_any_charge(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ward(tmp_path / "ward", bert, monkeypatch)
    path = one.folder / "site.toml"
    path.write_text(path.read_text().replace("[site]", "[site]\nmax_round_seconds = 100"))
    monkeypatch.setattr(proving, "measured_times", lambda admitted, length: Times(50.0, 1e-3))
    assert prepare(one, study(bert)).said[2] is Status.REFUSED
    assert "site.max_round_seconds: 100; a round of this study may take" in why(one)


def test_a_round_s_time_makes_room_for_large_draws_and_many_steps(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.ledgers import small_plan

    plan, times = small_plan(), Times(1.0, 0.0)
    one = replace(plan, local_steps=1)
    assert times.of_round(plan) > 4.8 * times.of_round(one)
    assert times.of_round(one) > 1 + 5 / plan.expected_batch_size**0.5


def test_an_evaluation_s_time_is_that_of_records_alone_and_not_a_part_of_a_step() -> None:
    """A single record does not fill a GPU: a step's part of it says nothing."""
    from tests.support.ledgers import evaluated_plan

    plan, times = evaluated_plan(), Times(1e-3, 0.0, 1.0)
    # 100 units are declared, and a keyed hash may hold 150 out.
    assert times.of_evaluation(plan, 100) == pytest.approx(150.1)
    person = replace(plan, max_records=3)
    assert times.of_evaluation(person, 100) == pytest.approx(450.1)
    file: Any = SimpleNamespace(site=SimpleNamespace(max_round_seconds=225.0, held_out_share=1.0))
    admitted: Any = SimpleNamespace(plan=plan, workspace=SimpleNamespace(team=None))
    proofs: Any = SimpleNamespace(times=lambda *_: times)
    with pytest.raises(RefusedError, match=r"site\.max_round_seconds: 225"):
        _periods(file, None, admitted, proofs)  # type: ignore[arg-type]
    file.site.max_round_seconds = 1e9
    period = _periods(file, None, admitted, proofs)[2]  # type: ignore[arg-type]
    assert period == period_of(150.1) > period_of(times.of_round(plan))


def test_a_round_of_votes_has_time_for_candidates_that_take_a_tokenizer_longest() -> None:
    """The coordinator chooses them: with no room for that, its texts could be so long that the
    number of units decides in which period a site answers."""
    plan: Any = SimpleNamespace(public_records=10, max_records=3)
    times = Times(0.0, encoding=0.5, voting=2.0, candidate=1.0)
    assert times.of_votes(plan, 4) == pytest.approx(
        4 * (0.5 + 1.0) + 10 * 3 * 2.0 + measured_times.BESIDE
    )


def test_of_several_processes_the_slowest_is_waited_for() -> None:
    """A process's share of a batch varies more, for its size, than the batch does."""
    from tests.support.ledgers import small_plan

    plan, times = small_plan(), Times(1000.0, 0.0)
    share = plan.expected_batch_size / 4
    most = plan.local_steps * 1000 * (1 + SPREAD / share**0.5)
    assert times.of_round(plan) < most < times.of_round(plan, 4) < most + 1

    def period(team: object) -> float:
        file: Any = SimpleNamespace(site=SimpleNamespace(max_round_seconds=1e9))
        workspace = SimpleNamespace(team=team)
        admitted: Any = SimpleNamespace(plan=plan, workspace=workspace)
        proofs: Any = SimpleNamespace(times=lambda *_: times)
        return _periods(file, None, admitted, proofs)[1]  # type: ignore[arg-type]

    assert period(None) == period_of(times.of_round(plan))
    assert (
        period(SimpleNamespace(processes=64)) == period_of(times.of_round(plan, 64)) > period(None)
    )
