"""Two sites whose records differ in one record give equal answers at equal times.

Each row is a study that a coordinator could send and a record that it would like to know of. The
path is the deployed one, from the claimed task to the reply that is handed over; what comes back
must be equal in every field, byte count and moment, up to the noise.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.adapter.wire import decode
from cloister.client.moments import Moments
from cloister.client.site_file import read_site
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.errors import DataError
from cloister.ledger.ledger import Ledger
from cloister.models.network import trained_parameters
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.recipe import Recipe
from tests.support.models import tiny_bert, tiny_llama
from tests.support.neighbours import LABELS, PIN, RECORDS, chats, notes, study
from tests.support.wards import Seen, Ward


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("ward"))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose tokenizer knows a word that its embedding does not: `zebra`."""
    base = tiny_bert(tmp_path_factory.mktemp("narrow"))
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["zebra"] = len(vocabulary) + 5
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    return base


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("ward"))


CHAT = ("task.kind=causal-lm", "task.labels=[]")


def template(condition: str) -> str:
    """A chat template that answers a question about a conversation by failing."""
    return (
        'task.chat_template="{% for m in messages %}{% if ' + condition + " %}"
        "{{ raise_exception('yes') }}{% endif %}{{ m['role'] }}: {{ m['content'] }}\\n"
        '{% endfor %}"'
    )


# What a coordinator could send to a ward of notes.
STUDIES: dict[str, tuple[str, ...]] = {
    "a fair study": (),
    "a label left out": ('task.labels=["cardiology", "orthopaedics"]',),
    "labels of its own": ('task.labels=["cardiology", "nobody", "pin 4711"]',),
    "more labels": (f"task.labels={json.dumps([*LABELS, 'oncology'])}",),
    "records cut short": ("task.max_length=3",),
    "longer than the base": ("task.max_length=128",),
    "by person": ("privacy.unit=person", "data.person=person"),
    "more rounds than are accepted": ("federation.num_rounds=900",),
    "a rank of its own": ("lora.r=2",),
    "that waits for somebody": (f"task.labels={json.dumps([*LABELS, 'haematology'])}",),
    "another base": (f"model.sha256='{'0' * 64}'",),
    "a base that nobody states": ("model.sha256=''",),
    "a base of its own": ("model.base='evil-org/two-terabytes'", f"model.sha256='{'0' * 64}'"),
    "another task": ("task.kind=token-classification", 'task.labels=["PER"]'),
    "without privacy": ("privacy.enabled=false",),
}


def recipe_of(base: Path, assignments: Sequence[str]) -> Recipe:
    recipe = study(base, *(a for a in assignments if a != "model.sha256=''"))
    if "model.sha256=''" in assignments:
        recipe = replace(recipe, model=replace(recipe.model, sha256=None))
    return recipe


Lives = Callable[..., list[Seen]]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lives:
    """The life of a study at a ward of these rows."""
    count = iter(range(100))

    def one(recipe: Recipe, rows: Sequence[object], base: Path, **options: str) -> list[Seen]:
        folder = tmp_path / str(next(count))
        return Ward.open(folder, rows, base, monkeypatch, **options).life(recipe)

    return one


@pytest.fixture(scope="module")
def lived() -> dict[tuple[object, ...], list[Seen]]:
    """Lives at wards of the usual rows, which tests compare with others."""
    return {}


@pytest.fixture
def usual(live: Lives, lived: dict[tuple[object, ...], list[Seen]]) -> Lives:
    """The life of a study at a ward of the usual rows, lived once."""

    def one(recipe: Recipe, base: Path, **options: str) -> list[Seen]:
        key = (recipe.digest(), base, *sorted(options.items()))
        if key not in lived:
            rows = chats() if options.get("task") == "causal-lm" else notes()
            lived[key] = live(recipe, rows, base, **options)
        return lived[key]

    return one


# Studies that the site refuses meet one record, the fair one every record.
USUAL = ("a secret",)
ASKED = {
    "a fair study": tuple(RECORDS),
    "labels of its own": ("a label that nobody names", "a secret"),
    "more labels": ("a label that nobody names", "a secret"),
    "records cut short": ("a long text", "a secret"),
    "longer than the base": ("a long text", "a secret"),
    "by person": ("a record more", "a secret"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_no_answer_to_a_study_depends_on_a_record(
    name: str, bert: Path, live: Lives, usual: Lives
) -> None:
    recipe = recipe_of(bert, STUDIES[name])
    unit = "person" if name == "by person" else "record"
    plain = usual(recipe, bert, unit=unit)
    for what in ASKED.get(name, USUAL):
        assert live(recipe, [*notes(), RECORDS[what]], bert, unit=unit) == plain, what


def test_no_answer_depends_on_a_token_that_the_base_lacks(
    narrow: Path, live: Lives, usual: Lives
) -> None:
    recipe, row = study(narrow), RECORDS["a token beyond the base"]
    assert usual(recipe, narrow) == live(recipe, [*notes(), row], narrow)


def test_no_answer_depends_on_how_many_records_there_are(
    bert: Path, live: Lives, usual: Lives
) -> None:
    recipe = study(bert)
    plain = usual(recipe, bert, unit="record")
    for count in (1, 2, 19, 90):
        assert live(recipe, notes(count), bert) == plain, count


def test_no_moment_follows_from_how_many_records_there_are(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The periods themselves are equal, not only the moments that came of them."""
    held: list[float] = []
    hold = Moments.hold

    def noting(self: Moments, begun: float, period: float) -> float:
        held.append(period)
        return hold(self, begun, period)

    monkeypatch.setattr(Moments, "hold", noting)
    recipe, found = study(bert), []
    for count in (20, 20_000):
        held.clear()
        proofs = AgentFolder(tmp_path / "20" / "ward.agent").proofs
        folder = tmp_path / str(count)
        ward = Ward.open(folder, notes(count), bert, monkeypatch, proofs=proofs)
        prepared = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
        assert prepared.said[2] is Status.READY
        ward.agent._folder.ask_reload()
        ward.agent._reload_if_asked()
        admitted = ward.agent._sites.admitted
        assert admitted is not None
        found.append([*held, admitted[1].period])
    assert len(found[0]) == 4
    assert found[0] == found[1]


CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "5 MB": [{"role": "user", "content": "pain " * 10**6}, {"role": "assistant", "content": "no"}],
    "a reply of 5 MB": [{"role": "assistant", "content": "no fever " * 500_000}],
    "1,000 turns": [
        {"role": ("user", "assistant")[n % 2], "content": "fever " * 10} for n in range(1000)
    ],
    "1,000 replies": [{"role": "assistant", "content": "no"} for _ in range(1000)],
}


@pytest.mark.parametrize(
    "name",
    [
        "5 MB",
        "1,000 turns",
        *(pytest.param(n, marks=pytest.mark.nightly) for n in ("a reply of 5 MB", "1,000 replies")),
    ],
)
def test_no_answer_depends_on_how_large_a_conversation_is(
    name: str, llama: Path, live: Lives, usual: Lives
) -> None:
    """One of 1,000 turns once took 8.8 s to encode, which `ready` told."""
    recipe = study(llama, *CHAT)
    plain = usual(recipe, llama, task="causal-lm")
    row = {"messages": CONVERSATIONS[name], "person": "q"}
    assert live(recipe, [*chats(), row], llama, task="causal-lm") == plain
    assert plain[0].said[2] is Status.READY


def test_the_studies_are_answered_in_every_way(bert: Path, usual: Lives) -> None:
    """So that the test above compares more than refusals."""
    said = {
        name: [seen.said[2] for seen in usual(recipe_of(bert, STUDIES[name]), bert, unit="record")]
        for name in ("a fair study", "longer than the base", "another base")
    }
    waiting = usual(recipe_of(bert, STUDIES["that waits for somebody"]), bert, unit="record")
    assert [seen.said[2] for seen in waiting] == [Status.UNAPPROVED, *[Status.REFUSED] * 7]
    trained, refused = Status.TRAINED, Status.REFUSED
    assert said["a fair study"] == [Status.READY, *[trained] * 3, *[refused] * 4]
    for name in ("longer than the base", "another base"):
        assert set(said[name]) == {refused}


@pytest.mark.parametrize(
    "condition",
    [
        "'4711' in m['content']",
        pytest.param("m['content'][0] == 't'", marks=pytest.mark.nightly),
        "messages | length == 3",
    ],
)
def test_a_chat_template_answers_no_question_about_a_record(
    condition: str, llama: Path, live: Lives, usual: Lives
) -> None:
    """A PIN of four digits was read in 19 questions, by `refused` or `failed`, at no charge."""
    recipe = study(llama, *CHAT, template(condition))
    ward = {"task": "causal-lm"}
    plain = usual(recipe, llama, **ward)
    turns = [{"role": "user", "content": PIN}, {"role": "assistant", "content": "yes"}]
    more = [{"role": "system", "content": "at rest"}, *turns]
    for messages in (turns, more):
        row = {"messages": messages, "person": "q"}
        assert live(recipe, [*chats(), row], llama, **ward) == plain


@pytest.mark.parametrize(
    "condition",
    ["'4711' in m['content']", pytest.param("messages | length == 3", marks=pytest.mark.nightly)],
)
def test_the_base_s_own_template_answers_no_question_about_a_record(
    condition: str, llama: Path, tmp_path: Path, live: Lives, usual: Lives
) -> None:
    """It may raise, as those that want roles in turn do: such a record is left out."""
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    (base / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if " + condition + " %}{{ raise_exception('yes') }}{% endif %}"
        "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    # Synthetic words are all unknown to this base, so nothing moves its queries.
    recipe = study(base, *CHAT, "task.max_length=64", "lora.target_modules=['v_proj']")
    ward = {"task": "causal-lm"}
    plain = usual(recipe, base, **ward)
    assert plain[0].said[2] is Status.READY
    turns = [{"role": "user", "content": PIN}, {"role": "assistant", "content": "yes"}]
    more = [{"role": "system", "content": PIN}, *turns]
    assert live(recipe, [*chats(), {"messages": more, "person": "q"}], base, **ward) == plain


# Rows that are no record: at home they are counted and named, and nobody else sees them.
MISFITS: dict[str, object] = {
    "an empty text": {"text": "", "label": "cardiology", "person": "q"},
    "no text": {"label": "cardiology", "person": "q"},
    "nothing": {"other": "pain"},
}


@pytest.mark.parametrize("row", MISFITS.values(), ids=MISFITS.keys())
def test_no_answer_depends_on_a_row_that_is_no_record(
    row: object, bert: Path, live: Lives, usual: Lives
) -> None:
    recipe = study(bert)
    assert live(recipe, [row, *notes()], bert) == usual(recipe, bert, unit="record")


BROKEN: dict[str, object] = {
    "no JSON": "4711",
    "half a row": '{"text": "pa',
}


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_cannot_be_read_is_refused_at_home_before_any_question(
    row: object, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError):
        Ward.open(tmp_path / "ward", [*notes(), row], bert, monkeypatch)


def test_weights_stay_where_isolation_was_tried_within_a_round_too(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch)
    recipe = study(bert, "training.learning_rate=1e6")
    ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
    asked = RoundRequest(recipe.digest(), 1, ward.adapter)
    assert ward.ask(recipe, asked).said[2] is Status.TRAINED
    admitted = ward.agent._sites.admitted
    assert admitted is not None
    network = admitted[1].workspace.network
    assert max(float(p.detach().abs().max()) for _, p in trained_parameters(network)) == 100.0


def test_records_that_change_while_the_agent_runs_change_no_answer(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = study(bert)
    plain = Ward.open(tmp_path / "0", notes(), bert, monkeypatch).life(recipe)
    proofs = AgentFolder(tmp_path / "0" / "ward.agent").proofs
    for number, text in enumerate(("{", "", json.dumps(RECORDS["a secret"]) + "\n"), 1):
        folder = tmp_path / str(number)
        ward = Ward.open(folder, notes(), bert, monkeypatch, proofs=proofs)
        (folder / "records.jsonl").write_text(text)
        assert ward.life(recipe) == plain


def test_a_restart_in_the_middle_of_a_study_is_seen_and_nothing_of_a_record(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that holds no admission admits itself when it is asked for a round."""
    recipe, seen = study(bert), []
    for number, rows in enumerate((notes(), [*notes(), RECORDS["a long text"]])):
        folder = tmp_path / str(number)
        first = Ward.open(folder, rows, bert, monkeypatch, proofs=tmp_path / "proofs.json")
        first.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
        if number == 0:
            (tmp_path / "proofs.json").write_bytes(first.proofs.read_bytes())
        question = RoundRequest(recipe.digest(), 1, first.adapter)
        first.ask(recipe, question)
        again = type(first.agent)(first.agent.path, first.agent.runtime, first.agent.moments)
        first.agent = again
        seen.append([first.ask(recipe, replace(question, round=n)) for n in (1, 2)])
    assert seen[0] == seen[1]
    assert [one.said[2] for one in seen[0]] == [Status.TRAINED, Status.TRAINED]


def test_an_update_differs_by_no_more_than_a_record_may_move_it(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same noise: what is left is one clipped gradient taken for another."""
    from cloister.client.site import Site
    from cloister.privacy.entropy import SeededEntropy

    def seeded(site: object, plan: object, number: int) -> SeededEntropy:
        return SeededEntropy(np.random.default_rng(number))

    monkeypatch.setattr(Site, "entropy", seeded)
    monkeypatch.setattr(SeededEntropy, "is_private", True)
    recipe = study(bert, "training.local_steps=1", "privacy.max_update_norm=1000.0")
    sent = []
    for number, last in enumerate((RECORDS["a secret"], notes()[4])):
        ward = Ward.open(tmp_path / str(number), [*notes(), last], bert, monkeypatch)
        ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
        for round_number in (1, 2, 3):
            ward.ask(recipe, RoundRequest(recipe.digest(), round_number, ward.adapter))
        ledger = Ledger(read_site(ward.folder / "site.toml").ledger)
        with ledger._file.writing() as transaction:
            released = sorted(ledger._history.released.values(), key=lambda entry: entry.seq)
            sent.append([decode(transaction.payload(entry.seq)) for entry in released])
    plan = 0.1 * 2 * 1.0 / 20  # learning rate · 2 C / expected batch
    apart = [(one - other).norm() for one, other in zip(*sent, strict=True)]
    assert max(apart) > 0
    assert max(apart) <= plan * (1 + 1e-5)
