"""A loaded adapter predicts what its evaluation scored, and reports what it cut."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cloister.cli.main import run
from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.errors import BadFileError, DataError, ModelFileError, UsageError
from cloister.export.adapter_folder import load_released
from cloister.models.network import Network
from cloister.registry.lineage import read_candidate
from cloister.serving.model import Model, load
from cloister.serving.predictions import Classified, Replied, Tagged
from cloister.tasks.config import TaskConfig
from cloister.tasks.rouge import rouge_l
from cloister.training.evaluation import evaluate
from cloister.training.generation import reply_score
from tests.support.models import WORDS, tiny_bert
from tests.support.released import exported

LENGTH = 9
TABLE = pd.DataFrame({"text": ["fever", "chest pain"]})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    task = TaskConfig(labels=("x", "y", "z"), max_length=LENGTH)
    return exported(tmp_path_factory.mktemp("classifier"), bert, task)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    task = TaskConfig(kind="token-classification", labels=("BODY", "SIGN"), max_length=LENGTH)
    return exported(tmp_path_factory.mktemp("tagger"), bert, task)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    task = TaskConfig(kind="causal-lm", max_length=24)
    return exported(tmp_path_factory.mktemp("chat"), llama, task)


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 14))) for _ in range(count)]


def scored(model: Model, records: list[Record]) -> dict[str, float]:
    """The scores of `cloister evaluate` on these records."""
    workspace = model.workspace
    examples = workspace.encode(records)
    return dict(evaluate(workspace.network, workspace.task, examples, model.max_tokens).metrics)


def test_labels_are_those_that_are_scored(classifier: Path) -> None:
    model = load(classifier)
    given = texts(60)
    labels = [("x", "y", "z")[number % 3] for number in range(60)]
    found = model.predict(given)
    hits = sum(
        isinstance(one, Classified) and one.label == label
        for one, label in zip(found, labels, strict=True)
    )
    records: list[Record] = [TextRecord(t, label) for t, label in zip(given, labels, strict=True)]
    assert hits / 60 == pytest.approx(scored(model, records)["accuracy"], abs=1e-9)
    assert len({one.label for one in found if isinstance(one, Classified)}) > 1


def test_probabilities_are_the_networks_own(classifier: Path) -> None:
    """A text alone, unpadded, has the probabilities that it has among longer ones."""
    model = load(classifier)
    one = model.predict(["chest pain", "the patient has no fever and a mild cough"])[0]
    assert isinstance(one, Classified)
    batch = model.workspace.tokenizer("chest pain", return_tensors="pt")
    with torch.no_grad():
        logits = model.workspace.network(batch["input_ids"], batch["attention_mask"])[0]
    expected = dict(zip(("x", "y", "z"), logits.softmax(0).tolist(), strict=True))
    assert one.probabilities == pytest.approx(expected, abs=1e-5)
    assert one.label == max(expected, key=lambda name: expected[name])
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_predictions_keep_their_order_and_repeat(classifier: Path) -> None:
    model = load(classifier)
    given = texts(30)
    found = model.predict(given)
    assert model.predict(given) == found
    again = load(classifier).predict(given[::-1])
    assert [one.label for one in again if isinstance(one, Classified)] == [
        one.label for one in found[::-1] if isinstance(one, Classified)
    ]


def test_a_text_that_is_cut_says_so(classifier: Path) -> None:
    model = load(classifier)
    fits = " ".join(["fever"] * (LENGTH - 2))  # beside [CLS] and [SEP]
    short, long, beyond = model.predict([fits, fits + " rash", fits + " " * 400 + "rash"])
    assert (short.is_cut, long.is_cut, beyond.is_cut) == (False, True, True)
    assert isinstance(short, Classified)
    assert isinstance(long, Classified)
    assert long.probabilities == pytest.approx(short.probabilities, abs=1e-5)


def test_entities_are_those_that_are_scored(tagger: Path) -> None:
    model = load(tagger)
    sentences = [tuple(text.split()) for text in texts(40)]
    found = [one for one in model.predict(sentences) if isinstance(one, Tagged)]
    records: list[Record] = [
        TokenRecord(words, one.tags) for words, one in zip(sentences, found, strict=True)
    ]
    # Where the gold tags are the predicted ones, all is right; where one is not, that shows.
    assert any(one.entities for one in found)
    assert scored(model, records)["f1"] == 1.0
    place = next(i for i, one in enumerate(found) if one.entities)
    records[place] = TokenRecord(sentences[place], ("O",) * len(sentences[place]))
    assert scored(model, records)["f1"] < 1.0


def test_an_entity_is_where_it_says(tagger: Path) -> None:
    model = load(tagger)
    for one in model.predict([" the  patient\thas chest pain and fever ", "a severe rash"]):
        assert isinstance(one, Tagged)
    given = [" the  patient\thas chest pain and fever "] + [f"  {text} " for text in texts(20)]
    entities = 0
    for text, one in zip(given, model.predict(given), strict=True):
        assert isinstance(one, Tagged)
        words = text.split()
        assert len(one.tags) == len(words)
        for entity in one.entities:
            entities += 1
            assert text[entity.start : entity.end] == entity.text
            assert entity.text.split() == words[entity.first_word : entity.end_word]
            assert 0 < entity.probability <= 1
            tags = one.tags[entity.first_word : entity.end_word]
            assert {tag[2:] for tag in tags} == {entity.type}
    assert entities


def test_words_beyond_the_longest_sentence_have_no_entity(tagger: Path) -> None:
    words = ["fever"] * 20
    one = load(tagger).predict([words])[0]
    assert isinstance(one, Tagged)
    assert one.is_cut
    assert set(one.tags[LENGTH - 2 :]) == {"O"}
    assert len(one.tags) == 20


def test_replies_are_those_that_are_scored(chat: Path) -> None:
    model = load(chat)
    turns = [("rash", "severe rash"), ("fever since monday", "no cough"), ("chest pain", "rest")]
    records = [ChatRecord((Message("user", q), Message("assistant", a))) for q, a in turns]
    asked = model.predict([[{"role": "user", "content": q}] for q, _ in turns])
    assert asked == model.predict([q for q, _ in turns])
    assert asked == model.predict([record.messages for record in records])
    replies = [one.reply for one in asked if isinstance(one, Replied)]
    task = model.workspace.task
    own = reply_score(model.workspace.network, task, model.workspace.tokenizer, records)  # type: ignore[arg-type]
    assert rouge_l(replies, [a for _, a in turns]) == own
    assert not any(one.is_cut for one in asked)
    assert model.predict(["fever " * 30])[0].is_cut


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["fever", " "], "input 2: empty"),
        ([["fever"]], "input 1: list given; a text is needed"),
        (["\ud800"], "half of a surrogate pair"),
    ],
)
def test_what_cannot_be_classified_is_named(classifier: Path, given: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load(classifier).predict(given)


def test_a_single_text_is_no_list(classifier: Path) -> None:
    with pytest.raises(UsageError, match=r"predict\(\[text\]\)"):
        load(classifier).predict("fever")


@pytest.mark.parametrize("given", [None, 3, b"fever", {"text": "fever"}, TABLE])
def test_a_table_is_no_list_of_inputs(classifier: Path, given: object) -> None:
    with pytest.raises(UsageError, match=r'predict\(frame\["text"\]\)'):
        load(classifier).predict(given)  # type: ignore[arg-type]
    assert len(load(classifier).predict(TABLE["text"])) == 2


@pytest.mark.parametrize("given", [[], [3], [""]])
def test_what_is_no_sentence_is_named(tagger: Path, given: list[str]) -> None:
    with pytest.raises(DataError, match="input 1"):
        load(tagger).predict([given] if given != [""] else given)


@pytest.mark.parametrize(
    "given", [[], [{"role": "nurse", "content": "a"}], [{"content": "a"}], ["a"]]
)
def test_what_is_no_conversation_is_named(chat: Path, given: list[dict[str, str]]) -> None:
    with pytest.raises(DataError, match="input 1"):
        load(chat).predict([given])


def test_nothing_in_nothing_out(classifier: Path) -> None:
    assert load(classifier).predict([]) == []


def test_another_base_is_refused(classifier: Path, tmp_path: Path) -> None:
    other = tiny_bert(tmp_path / "other", seed=9)
    with pytest.raises(ModelFileError, match="the study needs"):
        load(classifier, base=other)


def test_the_base_may_lie_elsewhere(classifier: Path, bert: Path, tmp_path: Path) -> None:
    place = tmp_path / "moved"
    place.symlink_to(bert)
    assert load(classifier, base=place).predict(["fever"]) == load(classifier).predict(["fever"])


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("tpu", "cpu, cuda, cuda:N or mps"),
        ("cuda:99", "this machine has"),
        ("mps", "no usable GPU of a Mac"),
    ],
)
def test_a_device_that_is_none_is_refused(
    classifier: Path, device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=said):
        load(classifier, device)


def test_the_cpu_can_be_chosen(classifier: Path) -> None:
    assert load(classifier, "cpu").workspace.network.device.type == "cpu"


def test_an_apple_gpu_can_be_chosen(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Apple GPU is here: what is moved, and where to, is noted in place of moving it."""
    moved = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(Network, "to", lambda self, place: moved.append(place))
    load(classifier, "mps")
    assert moved[-1] == torch.device("mps")


def changed(folder: Path, into: Path, **changes: object) -> Path:
    """A copy of an adapter that says something else of itself."""
    into.mkdir()
    for path in folder.iterdir():
        (into / path.name).write_bytes(path.read_bytes())
    document = json.loads((into / "cloister.json").read_text())
    for section, values in changes.items():
        document[section] |= values
    (into / "cloister.json").write_text(json.dumps(document))
    return into


def test_an_adapter_without_the_sites_own_parts_is_refused_and_with_one_site_s_it_predicts(
    classifier: Path, tmp_path: Path
) -> None:
    folder = changed(classifier, tmp_path / "kept", lora={"train": "b-kept"})
    load(folder)
    assert run(["export", str(folder)]) == 0
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({n: v * 0 if "lora_B" in n else v for n, v in weights.items()}, file)
    for opening in (load, load_released, read_candidate):
        with pytest.raises(UsageError, match="each site kept a part"):
            opening(folder)
    assert run(["export", str(folder)]) == 2
    file.write_bytes(b"{")
    with pytest.raises(BadFileError, match="missing or damaged"):
        load(folder)


def test_a_head_of_other_labels_is_refused(classifier: Path, tmp_path: Path) -> None:
    folder = changed(classifier, tmp_path / "labels", task={"labels": ["x", "y"]})
    with pytest.raises(BadFileError, match="the head has 3 outputs, the task 2"):
        load(folder)


def test_a_pickle_is_never_read(classifier: Path, tmp_path: Path) -> None:
    folder = changed(classifier, tmp_path / "pickle")
    torch.save({"weight": torch.zeros(3, 16)}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BadFileError):
        load(folder)
    torch.save({"weight": torch.zeros(3, 16)}, folder / "adapter_model.safetensors")
    with pytest.raises(BadFileError):
        load(folder)


def test_a_run_that_did_not_finish_says_so(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(BadFileError, match="the run did not finish"):
        load(tmp_path)


def test_a_plug_in_s_task_is_refused_before_anything_of_it_is_imported(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told_by_an_adapter.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = {"distribution": "", "version": "1", "records": "text", "options": {}}
    task = {"kind": "told_by_an_adapter:Task", "plugin": plugin}
    folder = changed(classifier, tmp_path / "plugged", task=task)
    with pytest.raises(UsageError, match="Cloister predicts for built-in tasks only"):
        load(folder)
    assert run(["predict", str(folder), "--text", "fever"]) == 2
