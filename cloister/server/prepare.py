"""Asks each site before the first round whether it takes part in a study.

A site that is asked to prepare accepts or refuses the study, finds and loads the base, proves its
per-record gradients, and answers one word. A download may take long, so the question has a deadline
of its own. A site that connects later is still asked for rounds, and prepares then. A run that
continues after a crash asks only the sites that have not agreed yet; otherwise frequent crashes
could keep a run from ever closing a round. A site at which the study waits for an approval answers
`unapproved`, which is not an error; it is asked again until the deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Message

from cloister.errors import QuorumError
from cloister.protocol.exchange import RECORD, RoundRequest, Status, Step
from cloister.server.dispatch import Dispatcher, Nodes
from cloister.server.replies import Awaited, Replies, ReplyTerms, read_replies
from cloister.server.study import ServerStudy


@dataclass(frozen=True)
class Prepared:
    """Which sites take part, and what the others answered.

    Attributes:
        ready: Sites that take part.
        retired: Sites whose budget does not cover a round.
        refused: Sites that do not take part, with the word that they answered.
        nodes: Flower's ids of the nodes that answered but do not take part.
        waiting: Sites at which the study was not approved by the deadline; they do not take part
            until the run is resumed.
        unfit: Refused sites whose answer could not be read; no round waits for them.
    """

    ready: frozenset[str]
    retired: frozenset[str]
    refused: Mapping[str, str]
    nodes: frozenset[int]
    waiting: frozenset[str] = frozenset()
    unfit: frozenset[str] = frozenset()

    def among(self, nodes: Nodes) -> Nodes:
        """Returns the nodes that may be asked for a round."""
        return {
            node: site
            for node, site in nodes.items()
            if node not in self.nodes and site not in self.waiting and not self._refuses(site)
        }

    def _refuses(self, site: str) -> bool:
        return bool(site) and site in self.refused


def prepare(study: ServerStudy, asker: Dispatcher) -> Prepared:
    """Asks every connected site whether it takes part.

    A silent site is probably busy: it is asked again after a tenth of the time.

    Args:
        study: The study.
        asker: Asks the sites.

    Raises:
        QuorumError: Too few are connected or ready for a round; the message names those that
            refused.
    """
    patience, people = asker.patience, study.participants
    silent = None if patience.silent is None else max(patience.silent, people.prepare_timeout / 10)
    events = _Events(study)
    asker = replace(
        asker,
        patience=replace(patience, round=people.prepare_timeout, silent=silent),
        on_event=events.tell,
        is_waiting=_is_unapproved,
    )
    if people.ready.issuperset(study.sites):
        return Prepared(people.ready, frozenset(), {}, frozenset())
    started = asker.clock()
    nodes = asker.connected(len(study.sites), study.enough, started)
    if len(nodes) < study.enough:
        raise QuorumError(
            f"{len(nodes)} sites are connected after {asker.clock() - started:.0f} s, "
            f"{study.enough} are needed; start the others, then resume the run"
        )
    asked = {node: site for node, site in nodes.items() if site not in people.ready}
    question, enough = RoundRequest(study.digest, 0, b"", Step.PREPARE), study.enough
    replies = read_replies(
        asker.ask(question, asked, enough - len(people.ready), started),
        ReplyTerms(study.digest, study.sites, study.keys),
        0,
        lambda site: Awaited(0, lambda payload: None),
        lambda site, payload: study.observer.site_ready(site),
        Status.READY,
    )
    known = set(replies.nodes.values())
    answered = {"", *replies.counted, *replies.retired, *replies.refused}
    prepared = Prepared(
        ready=people.ready | frozenset(replies.counted),
        retired=frozenset(replies.retired),
        refused=dict(replies.refused),
        nodes=frozenset(replies.came - known),
        unfit=frozenset(replies.unfit),
        waiting=frozenset(events.waiting - answered),
    )
    for site, why in sorted(prepared.refused.items()):
        study.observer.site_refused(site, why)
    _check_enough(study, prepared, replies)
    return prepared


def _check_enough(study: ServerStudy, prepared: Prepared, replies: Replies) -> None:
    excused = prepared.retired | replies.unfit
    needed = sum(site not in excused for site in study.sites)
    if study.secure is not None or study.min_sites is not None:
        needed = min(study.enough, len(study.sites) - len(prepared.retired))
    if replies.unfit:
        needed = max(needed, study.fewest)
    if len(prepared.ready) >= needed:
        return
    said = [f"{site} ({why})" for site, why in sorted(prepared.refused.items())]
    said += [f"{site} (waits for its operator's approval)" for site in sorted(prepared.waiting)]
    silent = set(study.sites) - prepared.ready - prepared.retired - prepared.refused.keys()
    said += [f"{site} (no answer)" for site in sorted(silent - prepared.waiting)]
    raise QuorumError(
        f"{len(prepared.ready)} of {len(study.sites)} sites take part in the study, {needed} are "
        f"needed: {', '.join(said)}; `cloister site status` shows the reason, at that site only; "
        "settle it with them, then resume the run or start another"
    )


def _is_unapproved(message: Message) -> bool:
    """Whether an answer says `unapproved`; the answer may be any message."""
    try:
        return bool(message.content[RECORD]["status"] == Status.UNAPPROVED)
    except Exception:  # not such an answer: `read_replies` reports what it is
        return False


@dataclass
class _Events:
    """Renames the events of this question, which is not a round.

    Attributes:
        study: The study whose observer gets the events.
        waiting: Sites whose operator has not approved the study yet; reported once each.
    """

    study: ServerStudy
    waiting: set[str] = field(default_factory=set)

    def tell(self, what: str, number: int, site: str) -> None:
        """Hands an event of this question on to the observer."""
        if what == "answered" or (what in ("asked", "waiting") and site in self.waiting):
            return
        self.study.observer.event("preparing" if what == "asked" else what, number, site)
        if what == "waiting":
            self.waiting.add(site)
            self.study.observer.note(
                f"waiting for the operator of {site or 'a site'}: approve the study "
                "there (cloister site studies list)"
            )
