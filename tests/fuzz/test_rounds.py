"""Fuzzes the whole round loop: whatever one site sends, the round of the others closes."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import MAGIC, encode
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.server.dispatch import Timeouts
from cloister.server.report import RoundReport
from cloister.server.rounds import run_study
from cloister.server.study import ServerStudy
from cloister.simulation.local_grid import SERVER_NODE, LocalGrid
from cloister.strategies.fedavg import FedAvg
from cloister.strategies.strategy import ServerState
from tests.support.clock import Clock, TimedGrid
from tests.support.fuzzing import fuzz, hostile_bytes, odd
from tests.support.server_studies import server_study

ONE = Adapter({"w": np.ones(2)})
START = ServerState(Adapter({"w": np.zeros(2)}))
NAMES = ("a", "b", "c")
UPDATE = encode(ONE)
HEAD = "ab" * 32


def grid(hostile: object, first: int = 0) -> LocalGrid:
    """Two sites that answer as they should, and one that says this from a round on."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> object:
        request = RoundRequest.from_fields(dict(message.content[RECORD]))
        site = NAMES[int(str(context.node_config["partition-id"]))]
        if site == "c" and request.round >= first:
            return hostile(message) if callable(hostile) else hostile
        status = Status.READY if request.step is Step.PREPARE else Status.TRAINED
        trained = status is Status.TRAINED
        said = RoundReply(
            site,
            request.round,
            status,
            UPDATE if trained else b"",
            1.0 * trained,
            HEAD if trained else "",
        )
        return Message(RecordDict({RECORD: ConfigRecord(said.fields())}), reply_to=message)

    whole = LocalGrid(app, len(NAMES))
    object.__setattr__(whole, "client_app", answer)
    return whole


def study(**changes: object) -> ServerStudy:
    given = {"min_sites": 2, **changes}
    return server_study(
        START,
        NAMES,
        num_rounds=2,
        patience=Timeouts(0.0),
        max_update_norm=ONE.norm(),
        prepare_timeout=0.0,
        nodes=lambda grid: {SERVER_NODE + 1 + at: site for at, site in enumerate(NAMES)},
        **given,
    )


def closes(hostile: object, first: int = 0) -> list[RoundReport]:
    """The reports of a study in which site c says this; the others' rounds closed."""
    TimedGrid(Clock(), {})  # Flower's messages want to know whose process this is
    reports: list[RoundReport] = []
    final = run_study(grid(hostile, first), study(on_round=reports.append))
    assert final.round == 2
    assert {report.missing for report in reports} <= {("c",), ()}
    assert final.adapter["w"].tolist() == [2.0, 2.0]
    for report in reports:
        for why in report.refused.values():
            assert why.isprintable()
            assert len(why) <= 301
    return reports


def content(value: object) -> object:
    """A message of this content, whatever it is."""

    def say(message: Message) -> Message:
        reply = Message(RecordDict(), reply_to=message)
        reply.__dict__["_content"] = value
        return reply

    return say


def record(**changes: object) -> object:
    """A reply to what was asked with other fields, which Flower's record would not take."""

    def say(message: Message) -> object:
        number = int(str(message.content[RECORD]["round"]))
        sound = RoundReply("c", number, Status.TRAINED, UPDATE, 1.0, HEAD).fields()

        class Record(ConfigRecord):
            def keys(self) -> Any:
                return {**sound, **changes}.keys()

            def __getitem__(self, name: str) -> Any:
                return {**sound, **changes}[name]

        return content({RECORD: Record()})(message)  # type: ignore[operator]

    return say


def update(dtype: str, tensors: str, body: bytes = b"") -> object:
    header = (
        f'{{"dtype":{dtype},"sha256":"{hashlib.sha256(body).hexdigest()}","tensors":{tensors}}}'
    )
    raw = header.encode("utf-8", "surrogatepass")
    return record(delta=MAGIC + b"\0\1" + len(raw).to_bytes(4, "big") + raw + body)


class Trap:
    """Fails whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("\x1b[2J" + "x" * 10_000)


HOSTILE: dict[str, object] = {
    "a RecordDict in place of a message": RecordDict(),
    "nothing in place of a message": None,
    "a trap in place of a message": Trap(),
    "no record": content(RecordDict()),
    "nothing in it": content(None),
    "a list of records": content([1, 2]),
    "a trap in it": content(Trap()),
    "metrics": content(RecordDict({RECORD: MetricRecord({"site": 1})})),
    "arrays": content(RecordDict({RECORD: ArrayRecord({"w": Array(np.zeros(2))})})),
    "a text in place of a record": content({RECORD: "site"}),
    "a trap in place of a record": content({RECORD: Trap()}),
    "an empty record": content(RecordDict({RECORD: ConfigRecord()})),
    "dtype a list": update("[]", "[]"),
    "dtype a table": update("{}", "[]"),
    "no tensors": update('"float32"', "{}"),
    "a dimension of 10,000 digits": update('"float32"', f'[["w",[{"9" * 10_000}]]]'),
    "100,000 dimensions": update('"float32"', f'[["w",[{",".join(["9" * 18] * 100_000)}]]]'),
    "deep JSON": update('"float32"', "[" * 50_000),
    "half a surrogate pair in a name": update('"float32"', '[["\ud800",[2]]]', b"\0" * 8),
    "a negative dimension": update('"float32"', '[["w",[-2,-1]]]', b"\0" * 8),
    "another width": update('"int8"', '[["w",[2]]]', b"\0" * 6),
    "a long update": record(delta=b"x" * 50_000_000),
    "an update that is a number": record(delta=7),
    "a round of 5,000 digits": record(round=10**5000),
    "half a surrogate pair as a site": record(site="\ud800"),
    "a site of a megabyte": record(site="c" * 2**20),
    "a site that is a list": record(site=["c"]),
    "an escape sequence as a status": record(status="\x1b[2J" * 1000),
    "a status that is no text": record(status=[]),
    "an ε that is no number": record(epsilon=float("nan")),
    "an ε below 0": record(epsilon=-1.0),
    "an ε that is text": record(epsilon="1"),
    "a head of a megabyte": record(head="0" * 2**20),
    "a head with escapes": record(head="\x1b]8;;http://x\x1b\\"),
    "a signature of a megabyte": record(signature=b"s" * 2**20),
    "a field more": record(**{"\x1b[2J": 1}),
    "fields of every name": record(**{str(n): n for n in range(1000)}),
    "fields that are no names": content({RECORD: {1: 2}}),
}


@pytest.mark.parametrize("first", [0, 1], ids=["when it prepares", "in its rounds"])
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_one_site_s_message_costs_it_its_place_and_nobody_else_s(
    hostile: object, first: int
) -> None:
    for report in closes(hostile, first):
        assert report.missing == ("c",)


@pytest.mark.parametrize("first", [0, 1], ids=["when it prepares", "in its rounds"])
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_it_ends_no_study_that_waits_for_all_of_its_sites(hostile: object, first: int) -> None:
    """What came and cannot be read is not waited for; only a message that is none at all is."""
    if isinstance(hostile, Trap | RecordDict) or hostile is None:
        return  # in process nothing tells whose it is: it is a site that says nothing
    TimedGrid(Clock(), {})
    final = run_study(grid(hostile, first), study(min_sites=None))
    assert final.adapter["w"].tolist() == [2.0, 2.0]


def test_a_sound_answer_counts() -> None:
    """What the rows above are changes of."""
    assert [report.missing for report in closes(record(), 1)] == [(), ()]


SOUND: Mapping[str, Any] = RoundReply("c", 1, Status.TRAINED, UPDATE, 1.0, HEAD).fields()


@fuzz
@given(
    st.one_of(
        hostile_bytes(UPDATE).map(lambda delta: record(delta=delta)),
        st.dictionaries(st.sampled_from([*SOUND, "more"]), odd).map(lambda c: record(**c)),
        odd.map(content),
        odd.map(lambda value: content({RECORD: value})),
        odd,
    ),
    st.sampled_from([0, 1]),
)
@example(update("[]", "[]"), 1)
def test_whatever_it_sends(hostile: object, first: int) -> None:
    closes(hostile, first)


class Broken(FedAvg):
    """A strategy with a mistake in it."""

    def step(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("a mistake of ours")


def test_a_mistake_in_aggregation_is_not_swallowed() -> None:
    """The boundary is around one message; what is made of it fails as loudly as it did."""
    TimedGrid(Clock(), {})
    with pytest.raises(TypeError, match="a mistake of ours"):
        run_study(grid(None), study(strategy=Broken({})))


def test_a_mistake_in_what_is_awaited_is_not_swallowed() -> None:
    def trained(number: int) -> frozenset[str]:
        raise TypeError("a mistake of ours")

    TimedGrid(Clock(), {})
    with pytest.raises(TypeError, match="a mistake of ours"):
        run_study(grid(None), study(trained=trained))
