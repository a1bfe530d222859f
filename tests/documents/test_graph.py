"""A graph of neighbours finds near passages, and no number in its file is used unchecked."""

import hashlib
import json
import os
import stat
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.documents.index import Index, Passage, load_index, save_index
from cloister.errors import BadFileError


@pytest.fixture(scope="module")
def many() -> Index:
    """Vectors around centres, as those of texts about some subjects are."""
    pytest.importorskip("usearch.index", reason="the extra search is not installed")
    from cloister.documents.graph import make_graph

    draw = np.random.default_rng(0)
    centres = draw.normal(size=(20, 16))
    vectors = centres[draw.integers(0, 20, 2000)] + 0.5 * draw.normal(size=(2000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = [Passage("a", None, "", at, f"p{at}") for at in range(len(vectors))]
    return Index("m", "d" * 64, {}, found, vectors, make_graph(vectors))


def test_a_graph_finds_nearly_all_of_the_nearest_with_their_exact_cosines(many: Index) -> None:
    assert many.graph is not None
    exact = replace(many, graph=None)
    shares = []
    for query in np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32):
        hits = many.search(query, 10)
        wanted = {hit.passage.start for hit in exact.search(query, 10)}
        shares.append(len(wanted & {hit.passage.start for hit in hits}) / 10)
        for hit in hits:
            assert hit.similarity == pytest.approx(
                float(many.vectors[hit.passage.start] @ query), abs=1e-6
            )
        assert [h.similarity for h in hits] == sorted((h.similarity for h in hits), reverse=True)
    # HNSW's recall at these settings is above 0.99 on such vectors; 0.9 is what a graph without
    # most of its links does not reach.
    assert np.mean(shares) > 0.9
    assert 0.9 < many.graph.recall <= 1.0


def test_a_graph_is_written_read_back_and_checked(many: Index, tmp_path: Path) -> None:
    save_index(many, tmp_path / "index")
    again = load_index(tmp_path / "index")
    assert again.graph is not None
    assert many.graph is not None
    assert again.graph.recall == many.graph.recall
    for path in (tmp_path / "index").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    query = many.vectors[7]
    assert again.search(query, 5) == many.search(query, 5)
    file = tmp_path / "index" / "graph.usearch"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadFileError, match=r"graph\.usearch is not what index\.json says"):
        load_index(tmp_path / "index")


def test_a_graph_of_other_vectors_is_refused(many: Index, tmp_path: Path) -> None:
    save_index(many, tmp_path / "index")
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    lines = (tmp_path / "index" / "passages.jsonl").read_bytes().splitlines(keepends=True)[:-1]
    vectors = (tmp_path / "index" / "vectors.f32").read_bytes()[: -4 * 16]
    (tmp_path / "index" / "passages.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "index" / "vectors.f32").write_bytes(vectors)
    about |= {
        "passages": 1999,
        "texts": hashlib.sha256(b"".join(lines)).hexdigest(),
        "vectors": hashlib.sha256(vectors).hexdigest(),
    }
    (tmp_path / "index" / "index.json").write_text(json.dumps(about))
    with pytest.raises(BadFileError, match="is not of 1999 vectors of 16"):
        load_index(tmp_path / "index")


# By what is wrong: where in a file of 2000 vectors of 16, from the end of the vectors on, and what
# is put there. usearch 2.26 ends the process, or answers from beyond the file, at most of these.
_HEAD, _LEVELS = 64, 64 + 40
_NODES = _LEVELS + 2 * 2000
CRAFTED = {
    "the entry": (_HEAD + 32, struct.pack("<Q", 2**40)),
    "the highest level": (_HEAD + 24, struct.pack("<Q", 9)),
    "room for links": (_HEAD + 8, struct.pack("<Q", 8)),
    "how many vectors": (_HEAD, struct.pack("<Q", 2001)),
    "numbers of an unexpected type": (14, b"\x0c"),
    "width": (33, struct.pack("<Q", 2**40)),
    "a level": (_LEVELS, struct.pack("<h", 7)),
    "a level below 0": (_LEVELS, struct.pack("<h", -1)),
    "a key": (_NODES, struct.pack("<Q", 2**40)),
    "a key twice": (_NODES, struct.pack("<Q", 1)),
    "a node's level": (_NODES + 8, struct.pack("<h", 3)),
    "number of links": (_NODES + 10, struct.pack("<I", 33)),
    "a link": (_NODES + 14, struct.pack("<I", 2000)),
    "a vector": (-4, struct.pack("<f", 1e30)),
}


@pytest.mark.parametrize("what", sorted(CRAFTED))
def test_no_crafted_number_of_a_graph_reaches_usearch(
    many: Index, tmp_path: Path, what: str
) -> None:
    """The folder's author writes the hash too, so it says nothing of them."""
    from cloister.documents.graph import read_graph

    assert many.graph is not None
    file = tmp_path / "graph.usearch"
    many.graph.index.save(str(file))
    assert read_graph(file, many.vectors, 1.0).candidates(many.vectors[3], 1)
    place, value = CRAFTED[what]
    content = bytearray(file.read_bytes())
    place += 8 + 2000 * 16 * 4
    assert content[place : place + len(value)] != value
    content[place : place + len(value)] = value
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"graph\.usearch (is|has|links)"):
        read_graph(file, many.vectors, 1.0)


@pytest.mark.parametrize("change", [-1, 1, -(2000 * 144)])
def test_a_graph_s_file_has_one_length(many: Index, tmp_path: Path, change: int) -> None:
    from cloister.documents.graph import read_graph

    assert many.graph is not None
    file = tmp_path / "graph.usearch"
    many.graph.index.save(str(file))
    content = file.read_bytes()
    file.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(ValueError, match=r"graph\.usearch (is too short|has another length)"):
        read_graph(file, many.vectors, 1.0)


def test_a_graph_that_changes_after_it_was_checked_is_refused(
    many: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.documents import graph

    assert many.graph is not None
    file = tmp_path / "graph.usearch"
    many.graph.index.save(str(file))
    monkeypatch.setattr(graph, "check_graph_file", lambda path, *_: os.utime(path, (1, 1)))
    with pytest.raises(ValueError, match="changed while it was read"):
        graph.read_graph(file, many.vectors, 1.0)


def test_a_link_to_a_node_of_a_lower_level_is_refused(many: Index, tmp_path: Path) -> None:
    """At a level at which it has no links, usearch would read those of the next node."""
    from cloister.documents.graph import read_graph

    assert many.graph is not None
    file = tmp_path / "graph.usearch"
    many.graph.index.save(str(file))
    content = bytearray(file.read_bytes())
    begin = 8 + 2000 * 16 * 4
    levels = np.frombuffer(bytes(content), "<i2", 2000, begin + _LEVELS)
    high = int(np.flatnonzero(levels)[0])
    sizes = 10 + 4 * 33 + 4 * 17 * levels.astype(int)
    upper = begin + _NODES + int(sizes[:high].sum()) + 10 + 4 * 33
    assert struct.unpack_from("<I", content, upper)[0] > 0
    struct.pack_into("<I", content, upper + 4, int(np.flatnonzero(levels == 0)[0]))
    file.write_bytes(content)
    with pytest.raises(ValueError, match="has a link to a node that does not exist"):
        read_graph(file, many.vectors, 1.0)
