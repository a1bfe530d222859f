"""An index is private, searches exactly, and is read as untrusted input."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.cli.main import run as cli
from cloister.documents.encoder import Encoder, open_encoder
from cloister.documents.index import (
    MOST_EXACT,
    Index,
    Passage,
    build_index,
    load_index,
    save_index,
)
from cloister.documents.sources import SourceText, documents_of, files_in
from cloister.errors import BadFileError, DataError, UsageError
from cloister.models.passage_head import passage_vectors
from cloister.tasks.config import TaskConfig
from tests.support.examples import tries
from tests.support.models import tiny_bert
from tests.support.released import exported

TEXTS = {
    "heart.txt": "chest pain at rest. the patient has severe chest pain since monday.",
    "knee.md": "knee swollen. mild knee pain and no fever.",
    "skin.txt": "itchy rash. the rash has no fever. severe rash.",
}
PASSAGES = (("a", "chest pain"), ("b", "itchy rash"))


@pytest.fixture(scope="module")
def encoder(bert: Path) -> Encoder:
    return open_encoder(bert)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    rows = [{"body": "fever and cough", "title": "Fever"}, {"body": "headache at rest"}]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / ".hidden.txt").write_text("never read")
    return folder


@pytest.fixture(scope="module")
def built(folder: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "own"
    asked = ["index", "build", str(folder), "--model", str(bert), "--out", str(out)]
    assert cli([*asked, "--text", "body"]) == 0
    return out


def test_a_folder_is_indexed_and_a_passage_finds_itself(
    built: Path, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = load_index(built)
    assert sorted(index.documents) == sorted([*TEXTS, "more.jsonl"])
    assert {one.title for one in index.passages if one.row == 1} == {"Fever"}
    for passage in index.passages[:3]:
        assert cli(["index", "search", str(built), "--text", passage.text, "--json"]) == 0
        (result,) = json.loads(capsys.readouterr().out)["results"]
        best = result["passages"][0]
        assert best["text"] == passage.text
        assert best["similarity"] == pytest.approx(1.0, abs=1e-3)  # vectors are rounded to 2⁻¹²
    assert cli(["index", "search", str(built), "--text", "fever and cough", "--top", "1"]) == 0
    assert "Fever (more.jsonl, row 1)" in capsys.readouterr().out


def test_an_index_is_its_owners_alone_and_never_written_over(built: Path, bert: Path) -> None:
    for path in (built, *built.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    before = {path.name: path.read_bytes() for path in built.iterdir()}
    asked = ["index", "build", str(built), "--model", str(bert), "--out", str(built)]
    assert cli(asked) == 2
    assert {path.name: path.read_bytes() for path in built.iterdir()} == before


def test_a_run_that_reads_less_of_a_text_is_refused(
    built: Path, bert: Path, tmp_path: Path
) -> None:
    task = TaskConfig(kind="retrieval", passages=PASSAGES, max_length=32)
    with pytest.raises(UsageError, match="build the index with it again"):
        load_index(built).check_encoder(open_encoder(exported(tmp_path, bert, task)))


def test_an_adapter_changes_queries_and_no_passage(
    encoder: Encoder, bert: Path, tmp_path: Path
) -> None:
    """So that an index serves every version of an adapter over its base."""
    task = TaskConfig(kind="retrieval", passages=PASSAGES, max_length=encoder.task.max_length)
    tuned = open_encoder(exported(tmp_path, bert, task))
    texts = list(TEXTS.values())
    assert tuned.digest == encoder.digest
    assert np.array_equal(tuned.passages(texts), encoder.passages(texts))
    assert np.abs(tuned.queries(texts) - encoder.queries(texts)).max() > 1e-3
    build_index(_documents(), encoder).check_encoder(tuned)


def test_an_index_of_another_base_is_refused(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_bert(tmp_path / "other", seed=5)
    asked = ["index", "search", str(built), "--text", "fever", "--model", str(other)]
    assert cli(asked) == 2
    assert "is not that of the index" in capsys.readouterr().err


def test_a_run_of_another_task_is_refused(bert: Path, tmp_path: Path) -> None:
    task = TaskConfig(labels=("x", "y"), max_length=16)
    with pytest.raises(UsageError, match="its task is sequence-classification"):
        open_encoder(exported(tmp_path, bert, task))


def _documents() -> list[SourceText]:
    return [SourceText(name, "0" * 64, None, "", text) for name, text in TEXTS.items()]


@settings(max_examples=tries(30), deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 30), top=st.integers(1, 40))
def test_search_is_that_of_a_slow_twin(seed: int, count: int, top: int) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-2, 3, (count, 4)).astype(np.float32)  # many of equal similarity
    query = draw.integers(-2, 3, 4).astype(np.float32)
    found = [Passage("a", None, "", at, f"p{at}") for at in range(count)]
    index = Index("m", "d", {}, found, vectors)
    slow = sorted(range(count), key=lambda at: (-float(vectors[at] @ query), at))[:top]
    hits = index.search(query, top)
    assert [hit.passage.start for hit in hits] == slow
    assert [hit.similarity for hit in hits] == [float(vectors[at] @ query) for at in slow]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = [Passage("é.txt", 3, "标题", 7, "a\nb\u2028c"), Passage("é.txt", None, "", 0, "好")]
    vectors = np.array([[0.5, -0.25], [1.0, 0.0]], dtype=np.float32)
    index = Index("/m", "d" * 64, {"é.txt": "0" * 64}, found, vectors)
    save_index(index, tmp_path / "index")
    again = load_index(tmp_path / "index")
    assert (again.model, again.encoder, again.documents) == (index.model, "d" * 64, index.documents)
    assert list(again.passages) == found
    assert np.array_equal(again.vectors, vectors)


@pytest.mark.parametrize("name", ["index.json", "passages.jsonl", "vectors.f32"])
def test_a_damaged_index_is_one_message(name: str, built: Path, tmp_path: Path) -> None:
    for change in ("cut", "byte", "gone"):
        copy = tmp_path / change
        copy.mkdir()
        for path in built.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        content = bytearray((copy / name).read_bytes())
        if change == "gone":
            (copy / name).unlink()
        elif change == "cut":
            (copy / name).write_bytes(content[:-5])
        else:
            content[len(content) // 2] ^= 0x15
            (copy / name).write_bytes(content)
        if (name, change) == ("index.json", "byte"):
            continue  # of a name that nothing checks it may be
        with pytest.raises(BadFileError):
            load_index(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("passages", 10**9),
        ("passages", True),
        ("width", 0),
        ("width", "16"),
        ("documents", []),
        ("model", 3),
        ("version", 2),
        ("version", 3),
        ("more", 1),
    ],
)
def test_a_hostile_index_allocates_nothing(
    field: str, value: object, built: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in built.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    about = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**about, field: value}))
    with pytest.raises(BadFileError, match="not an index, or damaged"):
        load_index(copy)


def test_more_passages_than_an_exact_search_is_for_are_refused(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.documents.index.MOST_PASSAGES", 2)
    assert MOST_EXACT == 100_000
    with pytest.raises(UsageError, match=r"more than 2 passages by skin\.txt"):
        build_index(_documents(), encoder)
    with pytest.raises(DataError, match="nothing to search in"):
        build_index([SourceText("a.txt", "0" * 64, None, "", " \n")], encoder)


def test_more_than_an_exact_search_is_for_need_usearch(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message comes before hours of encoding."""
    monkeypatch.setattr("cloister.documents.index.MOST_EXACT", 2)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.setattr(Encoder, "passages", lambda *_: pytest.fail("encoded"))
    with pytest.raises(UsageError, match=r"pip install 'cloister\[search\]'"):
        build_index(_documents(), encoder)


def test_an_index_with_a_graph_is_built(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("usearch.index", reason="the extra search is not installed")
    monkeypatch.setattr("cloister.documents.index.MOST_EXACT", 11)
    texts = [f"{one} {two}" for one in ("knee", "rash", "fever", "cough") for two in "abcd"]
    documents = [SourceText(f"{n}.txt", "0" * 64, None, "", t) for n, t in enumerate(texts)]
    index = build_index(documents, encoder)
    assert index.graph is not None
    assert index.search(encoder.queries(["rash c"])[0], 1)[0].similarity > 0.9


def test_documents_are_read_in_their_encoding(tmp_path: Path) -> None:
    text = "退货政策。您可以在三十天内退货。"
    (tmp_path / "zh.txt").write_bytes(text.encode("gb18030"))
    (found,) = documents_of("zh.txt", tmp_path / "zh.txt", "text", "title", "gb18030")
    assert found.text == text
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="give --text its column's name"):
        list(documents_of("rows.csv", tmp_path / "rows.csv", "text", "title", None))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="holds no text"):
        files_in([empty])
    with pytest.raises(BadFileError, match="No such file"):
        list(documents_of("gone.txt", tmp_path / "gone.txt", "text", "title", None))


def test_a_passages_vector_is_its_own(encoder: Encoder) -> None:
    texts = list(TEXTS.values())
    network, task = encoder.workspace.network, encoder.task
    alone = [passage_vectors(network, task, [text])[0].numpy() for text in texts]
    assert np.array_equal(encoder.passages(texts), np.stack(alone))
