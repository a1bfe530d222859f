"""A finished run offers its adapter once; missing, old or hostile sites go without."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.client.app import anonymous_refusal, as_message
from cloister.protocol.delivery import Claim
from cloister.protocol.exchange import RECORD, RoundReply, RoundRequest, Status, Step
from cloister.server.delivering import Delivered, deliver
from cloister.server.dispatch import Timeouts
from cloister.simulation.local_grid import SERVER_NODE, LocalGrid
from cloister.strategies.strategy import ServerState
from tests.support.server_studies import server_study

ADAPTER = Adapter({"w": np.array([1.0, -2.0])})
CLAIM = Claim("accuracy", 0.5, 3)
NAMES = ("east", "north", "west")
NODES = {SERVER_NODE + 1 + at: name for at, name in enumerate(NAMES)}

Says = Callable[[str, RoundRequest], RoundReply]


def ready(site: str, asked: RoundRequest) -> RoundReply:
    return RoundReply(site, asked.round, Status.READY, b"", 0.0, "")


def offered(
    says: Says,
    to: frozenset[str] = frozenset(NAMES),
    there: tuple[str, ...] = NAMES,
    patience: Timeouts | None = None,
) -> tuple[Delivered, dict[str, RoundRequest]]:
    """What came of an offer, and what each site was asked."""
    patience = patience or Timeouts(5.0, 0.0)
    asked: dict[str, RoundRequest] = {}
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = NODES[context.node_id]
        asked[site] = RoundRequest.from_fields(dict(message.content[RECORD]))
        return as_message(says(site, asked[site]), message)

    study = server_study(
        ServerState(ADAPTER),
        NAMES,
        num_rounds=3,
        patience=patience,
        max_update_norm=None,
        nodes=lambda grid: {node: name for node, name in NODES.items() if name in there},
    )
    return deliver(LocalGrid(app, len(NAMES)), study, to, ADAPTER, CLAIM), asked


def test_every_site_is_offered_the_same_adapter_and_what_is_said_of_it() -> None:
    delivered, asked = offered(ready)
    assert delivered == Delivered(frozenset(NAMES), {})
    for one in asked.values():
        assert one.step is Step.DELIVER
        assert one.adapter == encode(ADAPTER)
        assert Claim.from_bytes(one.body) == CLAIM
        assert one.study == "d"


def test_only_those_that_took_part_are_asked() -> None:
    delivered, asked = offered(ready, to=frozenset({"west"}))
    assert delivered.taken == asked.keys() == {"west"}


def test_a_site_of_an_older_version_ends_nothing() -> None:
    """It does not know the step, and answers as to any message that it cannot read."""
    old = lambda site, asked: anonymous_refusal(0) if site == "east" else ready(site, asked)  # noqa: E731
    delivered, _ = offered(old)
    assert delivered.taken == {"north", "west"}
    assert "refused" in delivered.refused["east"]


def test_a_site_that_is_gone_is_not_waited_for() -> None:
    delivered, asked = offered(ready, there=("east",))
    assert delivered == Delivered(frozenset({"east"}), {})
    assert asked.keys() == {"east"}
    assert offered(ready, there=())[0] == Delivered(frozenset(), {})


def test_a_site_that_never_answers_is_waited_for_as_long_as_agreed() -> None:
    class Silent(LocalGrid):
        def pull_messages(self, message_ids):  # type: ignore[no-untyped-def]
            return []

    study = server_study(
        ServerState(ADAPTER), NAMES, num_rounds=3, patience=Timeouts(0.05), max_update_norm=None
    )
    found = deliver(Silent(ClientApp(), 0), study, frozenset(NAMES), ADAPTER, CLAIM)
    assert found == Delivered(frozenset(), {})


@pytest.mark.parametrize(
    ("status", "said"), [(Status.REFUSED, "refused"), (Status.BUDGET, "budget")]
)
def test_what_a_site_says_is_told(status: Status, said: str) -> None:
    delivered, _ = offered(
        lambda site, asked: RoundReply(
            site, asked.round, status if site == "east" else Status.READY, b"", 0.0, ""
        )
    )
    assert delivered.taken == {"north", "west"}
    assert said in delivered.refused["east"]


@pytest.mark.parametrize(
    "says",
    [
        lambda site, asked: RoundReply("west", asked.round, Status.READY, b"", 0.0, ""),
        lambda site, asked: RoundReply(site, 1, Status.READY, b"", 0.0, ""),
        lambda site, asked: RoundReply(site, asked.round, Status.READY, b"a record", 0.0, ""),
        lambda site, asked: RoundReply(site, asked.round, Status.TRAINED, b"", 0.0, ""),
    ],
    ids=["another's name", "another round", "more than a word", "another word"],
)
def test_an_answer_that_is_none_does_not_count(says: Says) -> None:
    delivered, _ = offered(lambda site, asked: (says if site == "east" else ready)(site, asked))
    assert delivered.taken == {"north", "west"}
    assert "east" in delivered.refused


def test_a_message_without_a_reply_in_it_does_not_count() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"other": ConfigRecord({"a": 1})}), reply_to=message)

    study = server_study(
        ServerState(ADAPTER),
        NAMES,
        num_rounds=3,
        patience=Timeouts(5.0, 0.0),
        max_update_norm=None,
        nodes=lambda grid: NODES,
    )
    found = deliver(LocalGrid(app, 3), study, frozenset(NAMES), ADAPTER, CLAIM)
    assert found.taken == frozenset()
    assert found.refused.keys() == set(NAMES)
