"""A study waits for a site's operator, is reported once, and counts no failure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from cloister.errors import QuorumError
from cloister.protocol.exchange import RECORD, RoundReply, Status
from cloister.protocol.signed_questions import Unsigned
from cloister.server.dispatch import Dispatcher, Timeouts
from cloister.server.prepare import Prepared, prepare
from cloister.server.report import RoundReport
from cloister.server.rounds import run_study
from tests.server.test_prepare import but
from tests.server.test_rounds import good, grid, study
from tests.support.clock import Answer, Clock, TimedGrid
from tests.support.server_studies import changed

SITES = {2: "east", 3: "west"}
EVERY = Timeouts(1.0).waiting


@dataclass
class WordsGrid(TimedGrid):
    """Every answer is a word, by the time at which it is fetched."""

    words: Mapping[int, Callable[[float], object]] = field(default_factory=dict)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = list(super().pull_messages(message_ids))
        for message in found:
            node = message.metadata.src_node_id
            said = self.words[node](self.clock.now)
            if isinstance(said, Status):
                said = RoundReply(SITES[node], 0, said, b"", 0.0, "").fields()
            content = {RECORD: ConfigRecord(said)} if isinstance(said, dict) else {}  # type: ignore[arg-type]
            message.content = RecordDict(content)  # type: ignore[arg-type]
        return found


@dataclass
class Told:
    """What a study's observers are told while it prepares."""

    events: list[tuple[str, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def asked(
    words: Mapping[int, Callable[[float], object]], told: Told, least: int = 2
) -> tuple[Prepared, WordsGrid]:
    clock = Clock()
    instant: Answer = lambda count: (0.5, True)  # noqa: E731
    made = WordsGrid(clock, dict.fromkeys(SITES, instant), words=words)
    asker = Dispatcher(
        made,
        lambda _: SITES,
        Timeouts(5.0, 20.0, 5.0, silent=20.0),
        Unsigned(),
        clock=clock,
        wait=clock.wait,
    )
    whole = study(
        min_sites=least,
        prepare_timeout=600.0,
        on_note=told.notes.append,
        on_event=lambda *event: told.events.append(event),
        on_ready=told.ready.append,
        on_refused=told.refused.__setitem__,
    )
    return prepare(changed(whole, sites=("east", "west")), asker), made


def ready(now: float) -> Status:
    return Status.READY


def approved_at(when: float) -> Callable[[float], Status]:
    return lambda now: Status.READY if now >= when else Status.UNAPPROVED


def test_a_site_is_asked_again_until_somebody_there_has_approved() -> None:
    told = Told()
    found, made = asked({2: ready, 3: approved_at(100.0)}, told)
    assert found.ready == {"east", "west"}
    assert found.waiting == found.refused.keys() == set()
    assert 100.0 <= made.clock.now <= 100.0 + EVERY + 1.0
    times = [at for at, node in made.asked if node == 3]
    assert len([node for _, node in made.asked if node == 2]) == 1  # who answered is left alone
    assert all(EVERY <= b - a <= EVERY + 1.0 for a, b in pairwise(times))


def test_the_coordinator_s_operator_is_told_once_whom_it_waits_for() -> None:
    told = Told()
    asked({2: ready, 3: approved_at(100.0)}, told)
    (note,) = told.notes
    assert note.startswith("waiting for the operator of west:")
    assert [(what, site) for what, _, site in told.events] == [
        ("preparing", "east"),
        ("preparing", "west"),
        ("waiting", "west"),
    ]


def test_who_is_still_waited_for_at_the_deadline_is_at_no_fault() -> None:
    told = Told()
    found, made = asked({2: ready, 3: approved_at(9e9)}, told, least=1)
    assert found.ready == {"east"}
    assert found.waiting == {"west"}
    assert (told.ready, told.refused) == (["east"], {})  # not among those that refused
    assert found.among(SITES) == {2: "east"}
    assert made.clock.now == pytest.approx(600.0, abs=1.0)


def test_too_few_that_were_approved_end_the_study_and_say_who_waits() -> None:
    with pytest.raises(QuorumError, match=r"1 of 2 .* west \(waits for its operator's approval\)"):
        asked({2: ready, 3: approved_at(9e9)}, Told())


def test_what_comes_after_an_approval_is_what_counts() -> None:
    for then in (Status.REFUSED, Status.BUDGET):
        told = Told()
        word = lambda now, then=then: then if now > 50 else Status.UNAPPROVED  # noqa: E731
        found, _ = asked({2: ready, 3: word}, told, least=1)
        assert found.waiting == set()
        assert ("west" in found.refused) == (then is Status.REFUSED)
        assert ("west" in found.retired) == (then is Status.BUDGET)


ODD: dict[str, object] = {
    "no record": None,
    "no status": {"site": "west"},
    "a status that is a list": {"status": ["unapproved"]},
    "a word with more": {**RoundReply("west", 0, Status.READY, b"x", 0.0, "").fields()},
}


@pytest.mark.parametrize("said", ODD.values(), ids=ODD.keys())
def test_an_answer_that_is_none_is_not_waited_for(said: object) -> None:
    told = Told()
    found, made = asked({2: ready, 3: lambda now: said}, told, least=1)
    assert found.ready == {"east"}
    assert found.waiting == set()
    assert made.clock.now < 5.0
    assert told.notes == []


def test_the_word_counts_for_nothing_in_a_round() -> None:
    """A site that says it there is one that refused; nobody waits for it."""

    def answer(site: str, number: int) -> Mapping[str, object]:
        said = good(site, number)
        return {**said, "status": "unapproved", "delta": b""} if site == "c" else said

    reports: list[RoundReport] = []
    final = run_study(grid(answer), study(on_round=reports.append))
    assert final.round == 2
    assert [report.missing for report in reports] == [("c",), ("c",)]
    assert "unapproved" in str(reports[0].refused)


def test_a_site_without_a_name_of_its_node_is_not_confused_with_others() -> None:
    """In a simulation no node has a name; a word there keeps nobody else out."""
    with pytest.raises(QuorumError, match="2 of 3"):
        run_study(
            grid(good, prepared=but("c", status="unapproved")),
            study(min_sites=None, prepare_timeout=0.2),
        )
