"""What each desk does at home before the study: it indexes its pages and frames its dialogues.

A customer's question is answered later by an assistant that has searched the desk's pages. So the
model is trained on the same: each past dialogue gets the passages that the desk's own index finds
for its question, in the frame of `cloister serve --documents`. What a record becomes depends on its
own question and on the pages, never on another record, so its privacy unit is as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dialogues import Desk, Dialogue
from transformers import AutoTokenizer

from cloister.data.records import ChatRecord, Message
from cloister.documents.encoder import Encoder
from cloister.documents.frame import framed
from cloister.documents.index import build_index, save_index
from cloister.documents.sources import documents_of
from cloister.models.base import find_base
from cloister.service.library import Library


def index_pages(desk: Desk, folder: Path, encoder: Encoder, least: float) -> Library:
    """Writes a desk's pages and their index.

    Args:
        desk: The desk.
        folder: Its own.
        encoder: Of the retriever.
        least: The least similarity at which there is an answer.
    """
    folder.mkdir(parents=True)
    rows = [{"title": topic.title, "text": topic.page} for topic in desk.topics]
    write_rows(folder / "pages.jsonl", rows)
    found = documents_of("pages.jsonl", folder / "pages.jsonl", "text", "title", None)
    index = build_index(found, encoder)
    save_index(index, folder / "pages.index")
    return Library(index, encoder, least)


def marks_of(base: str) -> tuple[str, ...]:
    """The texts that a chat base's tokenizer takes for tokens of their own."""
    tokenizer = AutoTokenizer.from_pretrained(find_base(base))
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values())


def framed_rows(
    past: Iterable[Dialogue], library: Library, marks: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Dialogues as rows of a data file, each with the passages that were found for it.

    A dialogue whose page is not found is left out: an assistant would refuse it, or answer from
    another page.
    """
    past = list(past)
    asked = list(dict.fromkeys(one.question for one in past))
    found = dict(zip(asked, library.find_each(asked), strict=True))
    for one in past:
        chat, hits = ChatRecord((Message("user", one.question),)), found[one.question]
        pages = [hit.passage.text for hit in hits]
        if one.topic.page not in pages:
            continue
        (turn,) = framed(chat, hits, marks).messages
        answer = one.answer(pages.index(one.topic.page) + 1)
        yield {
            "messages": [
                {"role": "user", "content": turn.content},
                {"role": "assistant", "content": answer},
            ],
            "site": one.desk.key,
            "person": one.customer,
            "question": one.question,
            "fact": one.topic.fact,
        }


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
