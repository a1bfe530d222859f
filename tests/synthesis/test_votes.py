"""Synthetic records by votes: what a run costs, what it may contain, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister.canonical import canonical
from cloister.cli.main import run as cli
from cloister.client.round import run_round
from cloister.errors import (
    AdapterFormatError,
    BadFileError,
    BudgetError,
    CloisterError,
    DataError,
    ModelFileError,
    RecipeError,
    RefusedError,
    UsageError,
)
from cloister.evidence.bundle import Received
from cloister.export.croissant import Publication
from cloister.export.synthetic_facts import read_facts
from cloister.ledger.stated import of_plan
from cloister.ledger.storage import LedgerFile
from cloister.privacy.release_kind import ReleaseKind
from cloister.protocol.candidates import CandidateText
from cloister.protocol.exchange import RoundRequest, Step
from cloister.recipe import parse_document, parse_recipe
from cloister.recipe.vote_study import read_vote_study
from cloister.recipe.votes_config import VotesConfig
from cloister.synthesis import voted_records
from cloister.synthesis.voted_records import synthesize_by_votes
from cloister.synthesis.voters import Voters, open_voters
from cloister.synthesis.votes_folder import begin_folder
from cloister.voting import vote_rounds
from cloister.voting.generator import open_generator
from cloister.voting.kept_rounds import Counted
from cloister.voting.resampling import drawn, first_candidates, next_candidates
from cloister.voting.vote_rounds import Voted
from cloister.voting.written import write_records
from tests.support.models import tiny_llama
from tests.support.studies import NOTES, write_notes
from tests.tools.test_independent_verifier import verdicts

# Words of the tiny vocabulary in an order that nothing suggests; in no public text.
SECRET = "severe itchy swollen headache monday fever rash knee"
PUBLIC = {
    "cardiology": ["pain in the chest", "chest and fever"],
    "orthopaedics": ["knee and fever", "a mild knee"],
    "dermatology": ["rash monday", "itchy and mild"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    place = tmp_path_factory.mktemp("votes")
    write_notes(place / "train.jsonl", 60)
    with (place / "train.jsonl").open("a") as file:
        for site in ("east", "west"):
            row = {"text": SECRET, "label": "dermatology", "site": site, "person": f"secret {site}"}
            file.write(json.dumps(row) + "\n")
    rows = [{"text": t, "label": label} for label, texts in PUBLIC.items() for t in texts]
    (place / "public.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_llama(place / "generator")
    (place / "base").symlink_to(bert)
    return place


def study(folder: Path, name: str, *changes: tuple[str, str], more: str = "") -> Path:
    """Writes the small study, with changes, and returns its file."""
    text = f"""
[study]
name = "small"
[model]
base = "{folder / "base"}"
[task]
labels = {sorted(NOTES)}
max_length = 16
[data]
train = "{folder / "train.jsonl"}"
sites = 2
public_records = 30
[privacy]
epsilon = 4.0
[votes]
public = "{folder / "public.jsonl"}"
candidates = 6
rounds = 2
generator = "{folder / "generator"}"
most_tokens = 4
{more}
"""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """A finished run's records."""
    return synthesize_by_votes(study(folder, "done"), folder / "done.jsonl").file


def texts(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def charges(path: Path) -> list[dict[str, Any]]:
    fields = [entry.fields for entry in LedgerFile(path).entries()]
    return [one for one in fields if one["kind"] == "reserve"]


def test_a_run_writes_records_with_the_plan_s_promise_and_both_verifiers_take_them(
    folder: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = read_facts(done)
    assert facts is not None
    assert facts.records == len(texts(done)) <= 6
    assert facts.voted == {"east": 2, "west": 2}
    (plan,) = set(read_vote_study(folder / "done.toml").plans(("east", "west")).values())
    assert facts.promises == {"east": of_plan(plan), "west": of_plan(plan)}
    assert 3.9 < of_plan(plan).epsilon <= 4.0
    card = done.with_suffix(".README.md").read_text(encoding="utf-8")
    for words in (str(of_plan(plan)), "Voted: east in 2, west in 2", "public file public.jsonl"):
        assert words in card
    assert "fine-tuned" not in card
    assert "work together" not in card
    place = folder / "done.votes"
    for site in ("east", "west"):
        found = charges(place / "ledgers" / f"{site}.ledger")
        assert [(one["round"], one["release_kind"]) for one in found] == [(1, "vote"), (2, "vote")]
    keys = json.loads((place / "certificates" / "keys.json").read_text())
    bundle = place / "certificates" / "bundle.zip"
    assert verdicts(bundle, keys) == (True, True)
    assert cli(["audit", "verify", str(bundle), "--keys", str(bundle.with_name("keys.json"))]) == 0
    told = capsys.readouterr().out
    assert "2 of 2" in told  # a narrow table breaks its words
    words = " ".join(told.split())
    assert "The data set's files are those that every site certified" in words
    assert "coordinator says it received (4 votes) is in its site's ledger" in words
    assert "the data set's records are those that the released votes chose" in words
    assert not {"adapter", "adapter's", "updates", "hyper-parameters,"} & set(words.split())


def test_a_planted_canary_is_not_reproduced_unless_candidates_are_private(
    folder: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant takes private records for candidates; the first of them that is drawn stays."""
    assert SECRET not in "\n".join(texts(done))
    real = vote_rounds.first_candidates

    def leaky(public: Any, labels: Any, count: int, **more: Any) -> list[CandidateText]:
        found = real(public, labels, count, **more)
        return [
            CandidateText(SECRET, one.label) if one.label == "dermatology" else one for one in found
        ]

    monkeypatch.setattr(vote_rounds, "first_candidates", leaky)
    file = study(folder, "leaky", ("rounds = 2", "rounds = 1"))
    told = synthesize_by_votes(file, folder / "leaky.jsonl").file
    assert SECRET in "\n".join(texts(told))


def test_an_interrupted_run_goes_on_without_another_charge(
    folder: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash before the records were written: equal bytes, ledgers as they were."""
    file, place = study(folder, "again"), folder / "again.votes"

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(voted_records, "_written", crash)
        with pytest.raises(KeyboardInterrupt):
            synthesize_by_votes(file, folder / "again.jsonl")
    heads = [(place / "ledgers" / f"{site}.ledger.head").read_bytes() for site in ("east", "west")]
    told: list[tuple[int, int]] = []
    progress = voted_records.VoteProgress(on_round=lambda *row: told.append(row))
    synthesize_by_votes(file, folder / "again.jsonl", progress=progress)
    assert told == [(1, 2), (2, 2)]
    after = [(place / "ledgers" / f"{site}.ledger.head").read_bytes() for site in ("east", "west")]
    assert after == heads
    (folder / "again.jsonl").unlink()
    other = study(folder, "again", ("epsilon = 4.0", "epsilon = 3.9"))
    with pytest.raises(UsageError, match="has another study of votes"):
        synthesize_by_votes(other, folder / "again.jsonl")
    (place / "candidates-001.json").write_text("[]")
    with pytest.raises(BadFileError, match="damaged"):
        synthesize_by_votes(study(folder, "again"), folder / "again.jsonl")


def test_what_was_never_charged_gives_way_to_a_corrected_study(folder: Path) -> None:
    wrong = study(folder, "mended", (f"{folder}/generator", f"{folder}/base"))
    with pytest.raises(CloisterError):
        synthesize_by_votes(wrong, folder / "mended.jsonl")
    assert (folder / "mended.votes" / "ledgers" / "east.ledger").exists()
    begin_folder(folder / "mended.votes", {"study": "corrected"})
    assert [path.name for path in (folder / "mended.votes").iterdir()] == ["study.json"]


@pytest.fixture(scope="module")
def voters(folder: Path) -> Voters:
    plain = study(
        folder, "one", ("rounds = 2", "rounds = 1"), (f'generator = "{folder}/generator"', "")
    )
    return open_voters(read_vote_study(plain), folder / "one-ledgers")


def test_a_site_refuses_what_its_plan_does_not_list_and_charges_nothing(voters: Voters) -> None:
    admitted, digest = voters.admitted["east"], voters.study.digest
    head = admitted.site.ledger.head
    for request, error, why in (
        (RoundRequest(digest, 2, b"", Step.VOTE, b"[]"), RefusedError, "votes in round 2"),
        (RoundRequest(digest, 1, b"", Step.VOTE, b"[]"), AdapterFormatError, "0 given; the plan"),
        (RoundRequest(digest, 1, b"", Step.TRAIN), RefusedError, "lists votes alone"),
        (RoundRequest(digest, 1, b"", Step.EVALUATE), RefusedError, "does not list"),
        (RoundRequest("0" * 64, 1, b"", Step.VOTE, b"[]"), RefusedError, "accepted"),
    ):
        with pytest.raises(error, match=why):
            run_round(admitted, request, lambda: None)
    assert admitted.site.ledger.head == head


def test_counts_are_the_votes_with_noise_around_them(voters: Voters) -> None:
    candidates = [CandidateText(text, label) for label in NOTES for text in PUBLIC[label]]
    counted = voters.ask(1, candidates)
    noise = counted.noise
    # 62 units vote, and every count is six deviations from its share at most: 2e-9 each.
    assert abs(counted.votes.sum() - 62) < 6 * noise * np.sqrt(6)
    assert [one.site for one in counted.received] == ["east", "west"]
    assert (voters.ask(1, candidates).votes == counted.votes).all()  # the same bytes


# --- what the coordinator does with the counts ------------------------------------------------

FEW = [CandidateText(text, label) for label in ("a", "b") for text in ("one", "two", "three")]


class Echo:
    """A generator that numbers its variations."""

    def variations(
        self, one: CandidateText, copies: int, *purpose: str | int
    ) -> list[CandidateText]:
        return [CandidateText(f"{one.text} {purpose} {n}", one.label) for n in range(copies)]


def test_candidates_are_drawn_by_what_is_left_above_the_threshold_within_their_label() -> None:
    votes = np.array([9.0, 2.0, 1.9, -5.0, 0.0, 1.0])
    counts = drawn(FEW, votes, 2.0, np.random.default_rng(0))
    assert counts.tolist() == [3, 0, 0, 1, 1, 1]  # of the second label none is above: all stay
    many = sum(
        drawn(FEW, np.array([3.0, 1, 0, 1, 1, 1]), 0.0, np.random.default_rng(s))
        for s in range(400)
    )
    # 1,200 draws at 3/4, 1/4 and 0: five deviations are 75.
    assert abs(many[0] - 900) < 75
    assert many[2] == 0


def test_one_that_is_drawn_stays_once_and_is_varied() -> None:
    votes = np.array([9.0, 0, 0, 9, 0, 0])
    more: dict[str, Any] = {"threshold": 1.0, "number": 1, "seed": 0}
    found = next_candidates(FEW, votes, generator=Echo(), **more)  # type: ignore[arg-type]
    assert [one.label for one in found] == ["a"] * 3 + ["b"] * 3
    assert found[0] == FEW[0]
    assert len(set(found)) == 6
    assert next_candidates(FEW, votes, generator=None, **more) == [FEW[0], FEW[3]]


def test_the_first_candidates_are_public_texts_and_variations_where_they_are_few() -> None:
    enough = first_candidates(FEW, ("a", "b"), 5, seed=0, generator=None)
    assert [one.label for one in enough] == ["a"] * 3 + ["b"] * 2
    assert set(enough) <= set(FEW)
    more = first_candidates(FEW, ("a", "b"), 9, seed=0, generator=Echo())  # type: ignore[arg-type]
    assert [one.label for one in more] == ["a"] * 5 + ["b"] * 4
    assert len(set(more)) == 9


def test_a_round_without_a_sum_changes_no_candidate_and_counts_for_no_site(
    folder: Path, tmp_path: Path
) -> None:
    """And rounds whose counts are kept are not asked again."""
    read, asked = read_vote_study(study(folder, "lost")), list[int]()
    public = [CandidateText(text, label) for label in NOTES for text in PUBLIC[label]]
    sent = tuple(Received(1, site, "ab" * 32, "cd" * 32, ReleaseKind.VOTE) for site in ("e", "w"))

    def ask(number: int, candidates: Any) -> Counted:
        asked.append(number)
        if number == 1:
            return Counted(np.zeros(6), 0.0, sent[:1], 0)
        return Counted(np.full(6, 9.0), 1.0, (replace(sent[0], round=2), *sent[1:]), 2)

    def run() -> vote_rounds.Voted:
        return vote_rounds.run_rounds(read, ask, public, Echo(), tmp_path)  # type: ignore[arg-type]

    first = run()
    kept = [(tmp_path / f"candidates-00{number}.json").read_bytes() for number in (1, 2)]
    assert kept[0] == kept[1]
    assert first.counted == {"e": 1, "w": 1}
    assert len(first.received) == 3
    assert run() == first
    assert asked == [1, 2]
    for content, why in ((b"{}", "damaged"), (_of_other_candidates(tmp_path), "of other cand")):
        (tmp_path / "votes-002.json").write_bytes(content)
        with pytest.raises(BadFileError, match=why):
            run()


def _of_other_candidates(folder: Path) -> bytes:
    fields = json.loads((folder / "votes-001.json").read_text())
    return canonical(fields | {"candidates": "ab" * 32})


# --- what cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ([("candidates = 6", "candidates = 60")], UsageError, r"votes.candidates: 60 given; 2 si"),
        ([("epsilon = 4.0", "enabled = false")], UsageError, "privacy.enabled: votes without noi"),
        ([("epsilon = 4.0", 'noise = "shared"')], RecipeError, "at least 3 sites are needed"),
        ([("epsilon = 4.0", "max_grad_norm = 2.0")], RecipeError, "max_grad_norm: votes do not"),
        ([("sites = 2", "sites = 2\ntest = 'x.jsonl'")], RecipeError, "data.test: votes do not"),
        ([("[privacy]", "[training]\n[privacy]")], RecipeError, "training: not a section"),
        ([("max_length", "kind = 'causal-lm'\nmax_length")], RecipeError, "task.kind: causal-lm"),
        ([("candidates = 6", "candidates = 2")], RecipeError, "for 3 labels"),
        ([("candidates = 6", "candidate = 6")], RecipeError, "votes.candidate: unknown key"),
        ([("train = ", "# ")], UsageError, "data.train: missing; name the file of the records"),
        (
            [("most_tokens", "prompt = 'A {lable}: '\nmost_tokens")],
            RecipeError,
            r"votes.prompt: \{lable\} given, for which nothing is put",
        ),
        ([("most_tokens", "kept = 2.0\nmost_tokens")], RecipeError, "votes.kept: 2.0 given"),
        (
            [("epsilon = 4.0", "noise_multiplier = 1.0\nsite_budgets = [9.0, 3.0]")],
            BudgetError,
            r"3 for site 2 of 2 by name; 2 rounds of votes cost ε = \S+, and 0 of them fit",
        ),
        (  # as its ledger is called
            [
                ("epsilon = 4.0", "noise_multiplier = 1.0\nsite_budgets = [9.0, 3.0]"),
                ("sites = 2\n", 'sites = 2\npartition = "iid"\n'),
            ],
            BudgetError,
            r"3 for site-1; 2 rounds of votes cost ε",
        ),
    ],
)
def test_what_cannot_be_is_one_message_and_nothing_is_begun(
    folder: Path, changes: list[tuple[str, str]], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        synthesize_by_votes(study(folder, "bad", *changes), folder / "bad.jsonl")
    assert not (folder / "bad.votes").exists()


def test_where_no_text_is_left_the_message_says_why(folder: Path, tmp_path: Path) -> None:
    texts = (CandidateText(" ", "cardiology"), CandidateText("", "cardiology"))
    with pytest.raises(CloisterError, match=r"none of the last round's 2 texts is left \(2 empty"):
        write_records(
            tmp_path / "records.jsonl",
            read_vote_study(study(folder, "empty")),
            Voted(texts, (), {}),
            plans={},
            promises={},
            alone={},
            vectors="",
            generator=None,
            publication=Publication(),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_generator_that_writes_no_text_is_refused_by_its_own_name(folder: Path) -> None:
    votes = VotesConfig(public="public.jsonl", generator=str(folder / "base"))
    with pytest.raises(ModelFileError, match=r"^votes.generator: .* is a bert, an encoder"):
        open_generator(votes, 0, None)


def test_rounds_need_a_generator_and_a_public_file(folder: Path) -> None:
    file = study(folder, "bad", (f'generator = "{folder}/generator"', ""))
    with pytest.raises(RecipeError, match="generator: missing, and 2 rounds"):
        read_vote_study(file)
    file = study(folder, "bad", (f'public = "{folder}/public.jsonl"', ""))
    with pytest.raises(RecipeError, match="public: missing"):
        read_vote_study(file)


@pytest.mark.parametrize(
    ("rows", "error", "why"),
    [
        ([{"text": "a", "label": "other"}], DataError, "row 1: column label"),
        ([{"label": "cardiology"}], DataError, "row 1: column text"),
        ([{"text": "a", "label": "cardiology"}], DataError, "0 texts with label 'dermatology'"),
        ([], DataError, "no text in it"),
        (
            [
                {"text": SECRET if label == "dermatology" else "a", "label": label}
                for label in NOTES
            ],
            RefusedError,
            "1 of 3 texts are those of private records",
        ),
    ],
)
def test_a_public_file_that_cannot_be_is_refused(
    folder: Path, tmp_path: Path, rows: list[dict[str, str]], error: type[Exception], why: str
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = study(folder, "bad", (f"{folder}/public.jsonl", str(other)))
    with pytest.raises(error, match=why):
        synthesize_by_votes(file, folder / "bad.jsonl")
    assert not (folder / "bad.votes").exists()


def test_the_private_file_is_no_public_one(folder: Path) -> None:
    file = study(folder, "bad", (f"{folder}/public.jsonl", f"{folder}/train.jsonl"))
    with pytest.raises(RefusedError, match="private records"):
        synthesize_by_votes(file, folder / "bad.jsonl")


def test_a_study_of_votes_is_refused_by_name_where_recipes_are_read() -> None:
    with pytest.raises(RecipeError, match="votes: unknown section; a study of votes trains noth"):
        parse_recipe("[votes]\nrounds = 1")


def test_a_document_of_votes_reads_back_and_none_beside_training_is_read(folder: Path) -> None:
    recipe = read_vote_study(study(folder, "sent")).recipe
    again = parse_document(recipe.document())
    assert (again.digest(), again.votes) == (recipe.digest(), recipe.votes)
    whole = json.loads(recipe.document())
    for changed, why in (
        (whole | {"votes": {}}, "votes.public: missing"),
        (whole | {"votes": whole["votes"] | {"rounds": 3}}, "num_rounds: 2 for 3 rounds of votes"),
        (whole | {"lora": whole["lora"] | {"train": "both"}}, "lora.train: votes do not use it"),
        (
            json.loads(parse_recipe("").document()) | {"votes": whole["votes"]},
            "task.labels: missing",
        ),
    ):
        with pytest.raises(RecipeError, match=why):
            parse_document(canonical(changed).decode())


def test_the_command_refuses_what_a_study_of_votes_states_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(folder / "never.jsonl")
    file = str(folder / "done.toml")
    for given, why in (
        (["--votes", file, "--count", "3", "--seed", "1"], "--count, --seed: given with --votes"),
        (["runs/chat", "--votes", file], "RUN_OR_ADAPTER: given with --votes"),
        ([], "RUN_OR_ADAPTER: missing"),
        (["runs/chat"], "--count: missing"),
    ):
        assert cli(["synthesize", *given, "--out", out]) == 2
        assert why in capsys.readouterr().err


def test_an_interrupted_command_says_that_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloister.synthesis.voted_records.synthesize_by_votes", interrupted)
    command = ["synthesize", "--votes", str(folder / "done.toml"), "--out", str(folder / "n.jsonl")]
    assert cli(command) == 1
    assert "interrupted; the same command goes on" in capsys.readouterr().err
