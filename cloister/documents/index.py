"""An index of passages: their texts and vectors in a folder that only its owner may read.

    index.json       the model's digest, the documents with their hashes, sizes
    passages.jsonl   one passage a line: its document, its place in it, its text
    vectors.f32      little-endian float32 [K, H], rows of length 1
    graph.usearch    with more than 100,000 passages: a graph of neighbours (`documents.graph`)

Up to 100,000 passages, search is exact: it multiplies a query with every vector. 100,000 passages
of 384 coordinates are 154 MB and take one core about 20 ms. With more passages, a graph gives
candidates, whose cosines are then computed exactly. The folder is not trusted: sizes and hashes
are checked before anything is parsed, no format that can contain code is read, and every number of
a graph is checked before usearch follows it (`documents.graph_file`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloister.data.outputs import check_place
from cloister.documents.encoder import Encoder, Vectors
from cloister.documents.graph import NeighbourGraph, check_usearch, make_graph, read_graph
from cloister.documents.sentences import passages
from cloister.documents.sources import SourceText
from cloister.errors import BadFileError, DataError, UsageError
from cloister.files import bad_file, open_file, stamp_of, write_whole
from cloister.json_text import read_json
from cloister.owner_only import FILE
from cloister.staging import staging

# Versions of an index without and with a graph; programs that know only the first refuse a graph.
VERSION, WITH_GRAPH = 1, 2
# Most passages that are searched exactly: more take one core over 20 ms a query, and over 154 MB.
MOST_EXACT = 100_000
# Most passages: their vectors of 384 coordinates take 1.5 GB of memory while the index is used.
MOST_PASSAGES = 1_000_000
# Longest index.json, in bytes: it has a row of about 150 bytes for each document.
MOST_ABOUT = 2**24
# Longest line of passages.jsonl: a passage of 8,192 tokens, 32 characters each, 4 bytes each.
MOST_LINE = 2**20
# Most coordinates of a vector: the largest encoders have 8,192.
MOST_WIDTH = 2**14
_FACTS = ("version", "model", "encoder", "passages", "width", "vectors", "texts", "documents")
_GRAPH_FACTS = ("graph", "recall")


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage: a piece of a document that is indexed and found as one.

    Attributes:
        source: The document's file.
        row: Its row in that file; None: the file has no rows.
        title: The document's title; may be empty.
        start: Position of its first character in the document's text.
        text: The passage's text, unchanged.
    """

    source: str
    row: int | None
    title: str
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found by a search.

    Attributes:
        passage: The passage.
        similarity: Cosine of query and passage, from −1 to 1.
    """

    passage: Passage
    similarity: float


@dataclass(frozen=True)
class Index:
    """Passages with their vectors.

    Attributes:
        model: Path or hub id of the run or base that encoded the passages.
        encoder: Digest of that encoder (`Encoder.digest`).
        documents: SHA-256 of each file that was indexed, by the file's name.
        passages: The passages, in the order of their vectors.
        vectors: float32 [K, H], each row of length 1.
        graph: For more than `MOST_EXACT` passages: finds candidates. None: all are compared.
    """

    model: str
    encoder: str
    documents: dict[str, str]
    passages: Sequence[Passage]
    vectors: Vectors
    graph: NeighbourGraph | None = None

    def search(self, query: Vectors, top: int) -> list[Hit]:
        """Returns the passages nearest to a query, nearest first; ties keep the index's order.

        Args:
            query: The query's vector, [H].
            top: Most passages to return.
        """
        if self.graph is None:
            places, scores = np.arange(len(self.vectors)), self.vectors @ query
        else:
            places = np.array(self.graph.candidates(query, top))
            scores = self.vectors[places] @ query
        best = np.argsort(-scores, kind="stable")[:top]
        return [Hit(self.passages[places[at]], float(scores[at])) for at in best]

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuses an encoder whose vectors cannot be compared with the index's.

        Raises:
            UsageError: The encoder has another base, or reads texts in another way.
        """
        if encoder.digest != self.encoder:
            raise UsageError(
                f"{encoder.place}: its base, or how it reads texts, is not that of the index "
                f"({encoder.digest[:12]} here, {self.encoder[:12]} there): build the index with it "
                "again, or give the run or base that built it"
            )


def build_index(
    documents: Iterable[SourceText],
    encoder: Encoder,
    on_passage: Callable[[int], None] | None = None,
) -> Index:
    """Cuts documents into passages and encodes them.

    Args:
        documents: The documents.
        encoder: Computes the passages' vectors.
        on_passage: Called with the number of passages that are encoded.

    Raises:
        DataError: No document has any text.
        UsageError: There are more passages than `MOST_PASSAGES`, or than `MOST_EXACT` without
            usearch.
    """
    found: list[Passage] = []
    hashes: dict[str, str] = {}
    for document in documents:
        hashes[document.source] = document.sha256
        for span in passages(document.text, encoder.room, encoder.count):
            text = document.text[span.start : span.end]
            own = (document.source, document.row, document.title)
            found.append(Passage(*own, span.start, text))
            if len(found) == MOST_EXACT + 1:
                check_usearch(MOST_EXACT)
            if len(found) > MOST_PASSAGES:
                raise UsageError(
                    f"more than {MOST_PASSAGES:,} passages by {document.source}; their vectors "
                    "must fit into memory: index a part of the documents"
                )
    if not found:
        raise DataError("no document has a text, so there is nothing to search in")
    vectors = encoder.passages((passage.text for passage in found), on_passage)
    place = encoder.place
    named = str(place.absolute() if place.exists() else place)  # otherwise it is a hub id
    graph = make_graph(vectors) if len(found) > MOST_EXACT else None
    return Index(named, encoder.digest, hashes, found, vectors, graph)


def save_index(index: Index, out: Path) -> None:
    """Writes an index into a new folder that only its owner may read, completely or not at all.

    Raises:
        UsageError: The path exists already.
        BadFileError: The folder cannot be written.
    """
    check_place(out, what="folder")
    with staging(out, "written") as stage:
        folder = stage / "index"
        folder.mkdir(mode=0o700)
        vectors = index.vectors.astype("<f4").tobytes()
        texts = "".join(json.dumps(_line(one), ensure_ascii=False) + "\n" for one in index.passages)
        about = {
            "version": VERSION if index.graph is None else WITH_GRAPH,
            "model": index.model,
            "encoder": index.encoder,
            "passages": len(index.passages),
            "width": int(index.vectors.shape[1]),
            "vectors": hashlib.sha256(vectors).hexdigest(),
            "texts": hashlib.sha256(texts.encode()).hexdigest(),
            "documents": index.documents,
        }
        if index.graph is not None:
            file = folder / "graph.usearch"
            index.graph.index.save(str(file))
            file.chmod(FILE)
            about |= {"graph": stamp_of(file).sha256, "recall": index.graph.recall}
        write_whole(folder / "vectors.f32", vectors, FILE)
        write_whole(folder / "passages.jsonl", texts.encode(), FILE)
        write_whole(folder / "index.json", json.dumps(about, indent=1).encode(), FILE)
        folder.rename(out)


def load_index(folder: Path) -> Index:
    """Reads an index from its folder, and checks every file before it is used.

    Raises:
        BadFileError: The index is missing or damaged, or the folder is not an index.
    """
    try:
        about = _about(folder)
        count, width = about["passages"], about["width"]
        vectors_file, texts_file = folder / "vectors.f32", folder / "passages.jsonl"
        graph_file, graph = folder / "graph.usearch", None
        hashed = [(vectors_file, about["vectors"]), (texts_file, about["texts"])]
        hashed += [(graph_file, about["graph"])] if "graph" in about else []
        for file, wanted in hashed:
            if stamp_of(file).sha256 != wanted:
                raise ValueError(f"{file.name} is not what index.json says")
        if vectors_file.stat().st_size != 4 * count * width:
            raise ValueError(f"vectors.f32 has another size than {count} vectors of {width}")
        vectors = np.fromfile(vectors_file, dtype="<f4").reshape(count, width)
        if not np.isfinite(vectors).all():
            raise ValueError("vectors.f32 has NaN or infinite values")
        found = _passages(texts_file, count)
        if "graph" in about:
            graph = read_graph(graph_file, vectors, about["recall"])
    except OSError as error:
        raise bad_file(error, "read") from error
    except ValueError as error:
        raise BadFileError(
            f"{folder}: not an index, or damaged ({error}); build it again (cloister index build)"
        ) from error
    documents = {str(name): str(sha256) for name, sha256 in about["documents"].items()}
    return Index(about["model"], about["encoder"], documents, found, vectors, graph)


def _about(folder: Path) -> dict[str, Any]:
    with open_file(folder / "index.json") as file:
        about = read_json(file.read(MOST_ABOUT + 1), most_bytes=MOST_ABOUT)
    if not isinstance(about, dict):
        raise ValueError("index.json is not a JSON object")
    version = about.get("version")
    if type(version) is not int or version not in (VERSION, WITH_GRAPH):
        raise ValueError("written by another version of cloister")
    if set(about) != {*_FACTS, *(_GRAPH_FACTS if version == WITH_GRAPH else ())}:
        raise ValueError("index.json has other fields")
    if version == WITH_GRAPH and type(about["recall"]) is not float:
        raise ValueError("recall is not a number")
    named = ("model", "encoder", "vectors", "texts", *(("graph",) if "graph" in about else ()))
    if not all(isinstance(about[name], str) for name in named) or not isinstance(
        about["documents"], dict
    ):
        raise ValueError("index.json has a field of another type")
    most_passages = MOST_PASSAGES if version == WITH_GRAPH else MOST_EXACT
    for name, most in (("passages", most_passages), ("width", MOST_WIDTH)):
        if type(about[name]) is not int or not 1 <= about[name] <= most:
            raise ValueError(f"{name} is not a whole number from 1 to {most:,}")
    return about


def _line(passage: Passage) -> list[object]:
    return [passage.source, passage.row, passage.title, passage.start, passage.text]


def _passages(path: Path, count: int) -> list[Passage]:
    """Returns the passages of a file; there must be as many as vectors.

    Raises:
        ValueError: A line is not a passage, or the number of passages is not that of vectors.
    """
    found: list[Passage] = []
    with open_file(path) as file:
        while line := file.readline(MOST_LINE + 1):
            row = read_json(line, most_bytes=MOST_LINE)
            kinds = (str, int | None, str, int, str)
            fits = isinstance(row, list) and len(row) == len(kinds)
            if not fits or not all(isinstance(v, k) for v, k in zip(row, kinds, strict=True)):
                raise ValueError(f"passages.jsonl, line {len(found) + 1}: no passage")
            found.append(Passage(*row))
            if len(found) > count:
                raise ValueError("passages.jsonl has more lines than there are vectors")
    if len(found) != count:
        raise ValueError(f"passages.jsonl has {len(found)} lines for {count} vectors")
    return found
