"""Stores the questions to each member and its announced replies, across restarts.

Each member has a page, in a file named by the fingerprint of its node's key. A question is stored
before it leaves the gate, so the gate can check that an answer belongs to a question, also after a
restart. If a page is lost, the site is asked again, as for any lost answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cloister.files import write_whole

log = logging.getLogger(__name__)

# Most stored questions of a member. It gets one at a time; a silent member gets the same again
# after waits that double, so 16 are more than fit into a round.
MOST_QUESTIONS = 16


@dataclass(frozen=True, kw_only=True)
class PendingQuestion:
    """A question that went to a member, and its reply.

    Attributes:
        run: Flower's id of the run.
        kind: Flower's type of the message; the reply must have the same.
        objects: Ids of the question's objects.
        ends: Seconds since 1970 until which it may be answered.
        reply: Id of the one message that answers it; "" until there is one.
        announced: The reply's objects: ids of each object's parts, by the object's id.
    """

    run: int
    kind: str
    objects: frozenset[str]
    ends: float
    reply: str = ""
    announced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class MemberPage:
    """The stored questions and replies of one member.

    Attributes:
        node: Flower's id of its node; 0 while unknown.
        questions: By Flower's id of the message, oldest first.
        stored: Bytes of each object that was pushed since the gate started, by question.
    """

    node: int = 0
    questions: dict[str, PendingQuestion] = field(default_factory=dict)
    stored: dict[str, dict[str, int]] = field(default_factory=dict)

    def ask(self, question_id: str, question: PendingQuestion, now: float) -> None:
        """Stores a question; to make room, expired ones go first, then answered ones, then any."""
        kept = {key: old for key, old in self.questions.items() if old.ends > now}
        while len(kept) >= MOST_QUESTIONS:
            del kept[next((key for key, old in kept.items() if old.reply), next(iter(kept)))]
        known = kept.get(question_id)  # delivered twice: the announcement stays
        kept[question_id] = question if known is None else known
        self.questions = kept
        self.stored = {key: sizes for key, sizes in self.stored.items() if key in kept}

    def answer(
        self, question_id: str, reply: str, announced: Mapping[str, tuple[str, ...]]
    ) -> PendingQuestion:
        """Stores the reply to a question; returns the question without it."""
        before = self.questions[question_id]
        self.questions[question_id] = replace(before, reply=reply, announced=announced)
        return before

    def announcing(self, run: int, object_id: str) -> str | None:
        """The question of a run whose reply announced an object; None: no question."""
        return next(
            (
                key
                for key, question in reversed(self.questions.items())
                if question.run == run and object_id in question.announced
            ),
            None,
        )

    def size_with(self, question_id: str, object_id: str, size: int) -> int:
        """A reply's bytes with a further object of that size; an object that is pushed twice counts
        once."""
        sizes = self.stored.get(question_id, {})
        return sum(sizes.values()) - sizes.get(object_id, 0) + max(size, sizes.get(object_id, 0))

    def store(self, question_id: str, object_id: str, size: int) -> None:
        """Notes an object that was pushed."""
        sizes = self.stored.setdefault(question_id, {})
        sizes[object_id] = max(size, sizes.get(object_id, 0))


class Book:
    """The stored questions and replies of all members.

    Args:
        folder: Their folder; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pages: dict[str, MemberPage] = {}

    def page(self, key: str) -> MemberPage:
        """Returns the page of a node's key.

        Args:
            key: In PEM.
        """
        if key not in self._pages:
            self._pages[key] = self._read(key)
        return self._pages[key]

    def is_anothers(self, node: int, key: str) -> bool:
        """Whether a node id is known to belong to another key."""
        return any(page.node == node for other, page in self._pages.items() if other != key)

    def keep(self, key: str) -> None:
        """Writes a page; if that fails, for example on a full disk, it stays in memory only."""
        page = self._pages[key]
        rows = {
            question_id: asdict(question) | {"objects": sorted(question.objects)}
            for question_id, question in page.questions.items()
        }
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            text = json.dumps({"node": page.node, "questions": rows})
            write_whole(self._place(key), text.encode(), mode=0o600)
        except OSError as error:
            log.error(
                "the questions to a member cannot be written (%s); a gate that starts now does not "
                "know them, and the member is asked again",
                error,
            )

    def _place(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _read(self, key: str) -> MemberPage:
        place = self._place(key)
        try:
            return _page(json.loads(place.read_bytes()))
        except FileNotFoundError:
            return MemberPage()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.error("%s: cannot be read (%s); the member is asked again", place, error)
            return MemberPage()


def _page(document: Mapping[str, Any]) -> MemberPage:
    questions = {
        str(key): PendingQuestion(
            run=int(row["run"]),
            kind=str(row["kind"]),
            ends=float(row["ends"]),
            reply=str(row["reply"]),
            objects=frozenset(map(str, row["objects"])),
            announced={str(one): tuple(map(str, parts)) for one, parts in row["announced"].items()},
        )
        for key, row in document["questions"].items()
    }
    return MemberPage(node=int(document["node"]), questions=questions)
