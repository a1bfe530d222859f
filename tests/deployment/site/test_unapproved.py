"""Without an approval, the agent loads, reads and charges nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.client.site_file import read_site
from cloister.deployment.site import opened_site as own
from cloister.deployment.site.approvals import ApprovalState
from cloister.deployment.site.decisions import Decisions, Kind
from cloister.deployment.site.proposed import AskedStudies
from cloister.deployment.site.studies import shown, waiting_of
from cloister.ledger.ledger import Ledger
from cloister.protocol.exchange import WORDS, RoundRequest, Status, Step
from cloister.recipe import Recipe
from tests.client.test_differential import LABELS, RECORDS, notes, study
from tests.support.models import tiny_bert
from tests.support.wards import Seen, Ward

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("ward"))


@pytest.fixture
def ward(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """A ward that lets nothing in by itself."""
    return Ward.open(tmp_path / "ward", notes(), bert, monkeypatch, approves=False)


def prepare(one: Ward, recipe: Recipe) -> Seen:
    return one.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))


def decide(one: Ward, recipe: Recipe, kind: Kind) -> None:
    file = read_site(one.folder / "site.toml")
    terms, _ = shown(file, recipe.digest(), NOW)
    Decisions.of(file).add(kind, terms.study, terms.digest())


def files(folder: Path) -> dict[str, bytes]:
    """What lies beside `site.toml`, but for what the agent and the studies that asked leave."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {"ward.agent", "asked"} & set(path.parts)
    }


def test_nothing_is_opened_for_a_study_that_nobody_approved(
    ward: Ward, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every question: neither base nor hub nor proof nor records nor ledger is touched."""
    import huggingface_hub

    def never(name: str) -> Callable[..., object]:
        def called(*given: object, **named: object) -> object:
            raise AssertionError(f"{name} was called")

        return called

    for owner, name in (
        (own, "open_ledger"),
        (own, "own_base"),
        (own, "base_at_hand"),
        (own, "find_base"),
        (own, "open_workspace"),
        (own, "encode_units"),
        (own, "admit"),
        (Ledger, "check"),
        (Ledger, "reserve"),
        (huggingface_hub, "snapshot_download"),
    ):
        monkeypatch.setattr(owner, name, never(name))
    before, recipe = files(ward.folder), study(bert)
    digest, now = recipe.digest(), ward.clock.now
    assert prepare(ward, recipe).said[:3] == ("ward", 0, Status.UNAPPROVED)
    for step in (one for one in Step if one is not Step.PREPARE):
        seen = ward.ask(recipe, RoundRequest(digest, 1, b"adapter", step))
        assert seen.said[:3] == ("ward", 1, Status.REFUSED), step
    assert ward.agent._sites.admitted is None
    assert ward.agent._folder.refusals() == []  # it waits, which is no refusal
    assert files(ward.folder) == before
    assert ward.clock.now == now  # at once: nothing was done that takes time


def test_a_study_is_let_in_once_somebody_says_so_and_out_once_they_do_not(
    ward: Ward, bert: Path
) -> None:
    recipe = study(bert)
    assert prepare(ward, recipe).said[2] is Status.UNAPPROVED
    decide(ward, recipe, Kind.APPROVE)
    assert prepare(ward, recipe).said[2] is Status.READY
    first = RoundRequest(recipe.digest(), 1, ward.adapter)
    assert ward.ask(recipe, first).said[2] is Status.TRAINED
    decide(ward, recipe, Kind.REJECT)
    for step in (Step.TRAIN, Step.CERTIFY):  # though the study is loaded, from this question on
        again = RoundRequest(recipe.digest(), 2, ward.adapter, step)
        assert ward.ask(recipe, again).said[2] is Status.REFUSED
    assert prepare(ward, recipe).said[2] is Status.REFUSED
    assert "rejected by" in ward.agent._folder.refusals()[-1]["why"]
    decide(ward, recipe, Kind.APPROVE)
    assert prepare(ward, recipe).said[2] is Status.READY
    assert Ledger(read_site(ward.folder / "site.toml").ledger).steps == recipe.training.local_steps


def test_a_policy_that_is_loosened_needs_another_yes(ward: Ward, bert: Path) -> None:
    recipe, path = study(bert), ward.folder / "site.toml"
    whole = path.read_text()
    path.write_text(whole.replace("[privacy]", "[privacy]\nmin_noise_multiplier = 5.0"))
    prepare(ward, recipe)
    decide(ward, recipe, Kind.APPROVE)
    assert prepare(ward, recipe).said[2] is Status.READY
    path.write_text(whole)
    assert prepare(ward, recipe).said[2] is Status.UNAPPROVED
    decide(ward, recipe, Kind.APPROVE)
    assert prepare(ward, recipe).said[2] is Status.READY


def test_a_study_that_waits_does_not_unload_the_one_at_hand(ward: Ward, bert: Path) -> None:
    """Its coordinator asks every few seconds; the other study's rounds go on meanwhile."""
    recipe, other = study(bert), study(bert, "study.seed=7")
    prepare(ward, recipe)
    decide(ward, recipe, Kind.APPROVE)
    prepare(ward, recipe)
    loaded = ward.agent._sites.admitted
    assert prepare(ward, other).said[2] is Status.UNAPPROVED
    assert ward.agent._sites.admitted is loaded
    assert ward.agent._folder.study()["study"] == recipe.digest()


def test_what_the_policy_refuses_is_refused_and_does_not_wait(ward: Ward, bert: Path) -> None:
    recipe = study(bert, f"model.sha256='{'0' * 64}'")
    assert prepare(ward, recipe).said[2] is Status.REFUSED
    assert list(AskedStudies.of(read_site(ward.folder / "site.toml")).asked()) == []


def test_decisions_that_cannot_be_read_refuse_and_end_nothing(ward: Ward, bert: Path) -> None:
    recipe = study(bert)
    prepare(ward, recipe)
    decide(ward, recipe, Kind.APPROVE)
    (place,) = Decisions.of(read_site(ward.folder / "site.toml")).path.glob("*.jsonl")
    whole = place.read_bytes()
    for content in (b"{}\n", b"\xff\n", whole.replace(b"approve", b"approved")):
        place.write_bytes(content)
        assert prepare(ward, recipe).said[2] is Status.REFUSED
        assert "nothing is approved until" in ward.agent._folder.refusals()[-1]["why"]
        place.write_bytes(whole)
        assert prepare(ward, recipe).said[2] is Status.READY


def test_a_full_disk_keeps_no_study_from_its_word(
    ward: Ward, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AskedStudies, "note", full)
    assert prepare(ward, study(bert)).said[2] is Status.UNAPPROVED


def test_whether_a_study_waits_follows_from_no_record(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word, length, envelope and moment are those of a ward with another record."""
    recipe = study(bert)
    lives = []
    for number, more in enumerate(([], *([row] for row in RECORDS.values()))):
        one = Ward.open(
            tmp_path / str(number), [*notes(), *more], bert, monkeypatch, approves=False
        )
        begun = one.clock.now
        lives.append([replace_left(seen, begun) for seen in one.life(recipe)])
    assert lives[0][0].said[2] is Status.UNAPPROVED
    assert all(life == lives[0] for life in lives)


def replace_left(seen: Seen, begun: float) -> Seen:
    """A moment by when the agent began to serve, which is public and the same at every ward."""
    return replace(seen, left=seen.left - begun)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), marks=pytest.mark.nightly),
        ("training.update_dtype=int8",),
        ("lora.train=alternate",),
    ],
)
def test_the_bytes_that_an_operator_is_told_are_those_that_leave(
    more: tuple[str, ...], ward: Ward, bert: Path
) -> None:
    recipe = study(bert, "federation.num_rounds=2", *more)
    prepare(ward, recipe)
    file = read_site(ward.folder / "site.toml")
    terms, _ = shown(file, recipe.digest(), NOW)
    decide(ward, recipe, Kind.APPROVE)
    assert prepare(ward, recipe).said[2] is Status.READY
    sent = []
    for number in (1, 2):
        seen = ward.agent._sites.admitted
        assert seen is not None
        asked = RoundRequest(recipe.digest(), number, ward.adapter)
        sent.append(ward.ask(recipe, asked).said[3])
    assert own.exact_bytes(terms) == (max(sent), sum(sent))
    assert max(sent) <= terms.most_bytes[0]


def test_the_word_is_for_who_asks_whether_the_site_takes_part() -> None:
    assert {step for step in Step if Status.UNAPPROVED in WORDS[step]} == {Step.PREPARE}


def test_the_operator_sees_what_waits(ward: Ward, bert: Path) -> None:
    file = read_site(ward.folder / "site.toml")
    assert waiting_of(file, NOW) == []
    recipe = study(bert)
    prepare(ward, recipe)
    (row,) = waiting_of(file, NOW)
    assert (row["study"], row["name"], row["state"]) == (
        recipe.digest(),
        "small",
        ApprovalState.WAITING,
    )
    more = study(bert, f'task.labels=["haematology", {", ".join(map(repr, LABELS))}]')
    prepare(ward, more)
    assert len(waiting_of(file, NOW)) == 2
    decide(ward, recipe, Kind.REJECT)
    assert [row["study"] for row in waiting_of(file, NOW)] == [more.digest()]
