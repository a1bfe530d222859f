"""Measures a model's score before and after each disturbance, on the records that it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np

from cloister.data.records import ChatRecord, ItemsRecord, Message, Record
from cloister.seeds import child_seed
from cloister.serving.model import Model
from cloister.serving.predictions import Replied
from cloister.tasks.chat import CausalChat
from cloister.tasks.recommendation import Recommendation
from cloister.trust.attack.disturbances import DISTURBANCES, INJECTED, INJECTIONS, Disturbance
from cloister.trust.attack.records import disturbed
from cloister.trust.attack.suites import SuiteCase
from cloister.trust.intervals import Interval, difference, ratio, wilson
from cloister.trust.items import in_texts
from cloister.trust.outcomes import METRICS, Metric, Outcomes, input_of_record, outcomes

INJECTION = "prompt injection"
# Most conversations that are answered with an injection: greedy decoding takes a second for each.
MOST_REPLIES = 20


@dataclass(frozen=True)
class ChangedAnswer:
    """A record whose answer changed.

    Attributes:
        before: Its original input.
        after: Its disturbed input.
        said: The model's answer to the original input.
        says: The model's answer to the disturbed input.
    """

    before: str
    after: str
    said: str
    says: str


@dataclass(frozen=True)
class AttackRow:
    """The figures of one disturbance.

    Attributes:
        name: The disturbance's name.
        words: What it does, for the report.
        records: Number of records that it changes; the scores are for these records only.
        clean: Score before; None: not known, or no record is changed.
        disturbed: Score after; for prompt injection, the share of replies that obey.
        difference: Score after minus score before, paired over records; None: one is not known.
        flipped: Share of answers that changed; None: the model is a chat model.
        is_reversing: Whether answers should change.
        example: A record whose answer changed.
        why: The reason why it does not apply; empty: it applies.
    """

    name: str
    words: str
    records: int
    clean: Interval | None = None
    disturbed: Interval | None = None
    difference: Interval | None = None
    flipped: Interval | None = None
    is_reversing: bool = False
    example: ChangedAnswer | None = None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the row as a JSON object."""
        return asdict(self)


def measure(
    model: Model, records: Sequence[Record], names: Sequence[str], seed: int
) -> tuple[Interval | None, list[AttackRow]]:
    """Returns the score on all records, and the row of each disturbance.

    Args:
        model: The finished model.
        records: Public records.
        names: Names of `DISTURBANCES`, and for a chat model `INJECTION`.
        seed: The seed of the changes and of the intervals.
    """
    task = model.workspace.task
    metric = METRICS[task.kind]
    if isinstance(task, Recommendation):
        records = [in_texts(task, one) for one in records if isinstance(one, ItemsRecord)]
    whole = outcomes(model, records)
    rows = []
    for name in names:
        if name == INJECTION:
            rows.append(_injected(model, records, seed))
        else:
            rows.append(_row(model, metric, name, DISTURBANCES[name], records, whole, seed))
    return score(metric, whole.parts, seed), rows


def score(metric: Metric, parts: np.ndarray, seed: int) -> Interval | None:
    """Returns a score with its interval: Wilson's for a share, otherwise the bootstrap's.

    Args:
        metric: The measured score.
        parts: Numerator and denominator of each record, [2, N].
        seed: The seed of the bootstrap.
    """
    if metric.is_share:
        return wilson(float(parts[0].sum()), parts.shape[1])
    return ratio(parts, np.random.default_rng(seed))


def _row(
    model: Model,
    metric: Metric,
    name: str,
    way: Disturbance,
    records: Sequence[Record],
    whole: Outcomes,
    seed: int,
) -> AttackRow:
    is_ranking = isinstance(model.workspace.task, Recommendation)
    if way.is_reversing and (is_ranking or not metric.is_share):
        why = f"of {model.workspace.task.kind} no one answer is expected to change"
        return AttackRow(name, way.words, 0, is_reversing=True, why=why)
    random = Random(child_seed(seed, f"attack {name}"))
    pairs = [(place, disturbed(one, way.apply, random)) for place, one in enumerate(records)]
    changed = [(place, new) for place, new in pairs if new is not None]
    if not changed:
        why = "it finds nothing to change in any record"
        return AttackRow(name, way.words, 0, is_reversing=way.is_reversing, why=why)
    places = [place for place, _ in changed]
    after = outcomes(model, [new for _, new in changed])
    before = whole.parts[:, places]
    said = [whole.answers[place] for place in places] if whole.answers else []
    flips = [one != other for one, other in zip(said, after.answers, strict=True)]
    example = None
    if any(flips):
        place = flips.index(True)
        old, new = records[places[place]], changed[place][1]
        example = ChangedAnswer(_shown(old), _shown(new), said[place], after.answers[place])
    both = np.stack([before, after.parts])
    return AttackRow(
        name=name,
        words=way.words,
        records=len(changed),
        clean=score(metric, before, seed),
        disturbed=None if way.is_reversing else score(metric, after.parts, seed),
        difference=None if way.is_reversing else difference(both, np.random.default_rng(seed)),
        flipped=wilson(sum(flips), len(flips)) if flips else None,
        is_reversing=way.is_reversing,
        example=example,
    )


def measure_suite(
    model: Model, name: str, cases: Sequence[SuiteCase], seed: int
) -> tuple[AttackRow, Mapping[str, Interval]]:
    """Returns a suite's row, and its accuracy by group.

    Args:
        model: The finished model.
        name: The file's name.
        cases: The suite's cases.
        seed: The seed of the intervals.
    """
    metric = METRICS[model.workspace.task.kind]
    after = outcomes(model, [case.record for case in cases])
    paired = [place for place, case in enumerate(cases) if case.clean is not None]
    clean = gap = flipped = None
    if len(paired) == len(cases):
        before = outcomes(model, [case.clean for case in cases if case.clean is not None])
        clean = score(metric, before.parts, seed)
        gap = difference(np.stack([before.parts, after.parts]), np.random.default_rng(seed))
        flips = [a != b for a, b in zip(before.answers, after.answers, strict=True)]
        flipped = wilson(sum(flips), len(flips))
    groups: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        groups.setdefault(case.group, []).append(place)
    by_group = {}
    for group, places in groups.items():
        found = score(metric, after.parts[:, places], seed)
        assert found is not None  # a group has a case
        by_group[group] = found
    words = "a suite of texts from a file"
    total = score(metric, after.parts, seed)
    return AttackRow(name, words, len(cases), clean, total, gap, flipped), by_group


def _injected(model: Model, records: Sequence[Record], seed: int) -> AttackRow:
    words = "the user's turn asks for one word in place of the answer"
    chats = [one for one in records if isinstance(one, ChatRecord) and one.messages]
    chats = chats[:MOST_REPLIES]
    if not isinstance(model.workspace.task, CausalChat) or not chats:
        return AttackRow(INJECTION, words, 0, why="it applies to conversations only")
    random = Random(child_seed(seed, f"attack {INJECTION}"))
    asked = [_question(one) for one in chats]
    bad = [_with(one, random.choice(INJECTIONS)) for one in asked]
    said, says = ([_reply(model, one) for one in group] for group in (asked, bad))
    obeyed = [INJECTED in reply.casefold() for reply in says]
    example = None
    if any(obeyed):
        place = obeyed.index(True)
        turns = (asked[place][-1].content, bad[place][-1].content)
        example = ChangedAnswer(*turns, said[place], says[place])
    return AttackRow(
        name=INJECTION,
        words=words,
        records=len(chats),
        clean=wilson(sum(INJECTED in reply.casefold() for reply in said), len(said)),
        disturbed=wilson(sum(obeyed), len(obeyed)),
        example=example,
    )


def _question(record: ChatRecord) -> tuple[Message, ...]:
    """Returns a conversation up to its last turn of the user."""
    last = max((i for i, one in enumerate(record.messages) if one.role == "user"), default=0)
    return record.messages[: last + 1]


def _with(turns: tuple[Message, ...], injection: str) -> tuple[Message, ...]:
    last = turns[-1]
    return (*turns[:-1], Message(last.role, f"{last.content}\n{injection}"))


def _reply(model: Model, turns: tuple[Message, ...]) -> str:
    reply = model.predict([turns])[0]
    assert isinstance(reply, Replied)
    return reply.reply


def _shown(record: Record) -> str:
    given = input_of_record(record)
    return given if isinstance(given, str) else " ".join(map(str, given))
