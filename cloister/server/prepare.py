"""Which sites take part in a study: asked once before its rounds, and anew when a run goes on.

A site that is asked to prepare accepts or refuses the study, finds and loads the base, proves its
per-record gradients, and says one word. It may take as long as a download does, so the question
has a deadline of its own. Who comes later is asked for its rounds all the same, and prepares then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cloister.adapter.exchange import RoundRequest, Status, Step
from cloister.errors import QuorumError
from cloister.server.asking import Asker, Nodes
from cloister.server.replies import Awaited, Replies, Terms, read_replies
from cloister.server.study import ServerStudy


@dataclass(frozen=True)
class Prepared:
    """What the sites said.

    Attributes:
        ready: Sites that take part.
        retired: Sites whose budget covers no round.
        refused: Sites that take no part, with what is known of why: their word.
        nodes: Flower's ids of the nodes that answered and take no part.
        unfit: Of the refused, sites whose answer could not be read: no round waits for them.
    """

    ready: frozenset[str]
    retired: frozenset[str]
    refused: Mapping[str, str]
    nodes: frozenset[int]
    unfit: frozenset[str] = frozenset()

    def among(self, nodes: Nodes) -> Nodes:
        """Those of these nodes that may be asked for a round."""
        return {
            node: site
            for node, site in nodes.items()
            if node not in self.nodes and (not site or site not in self.refused)
        }


def prepare(study: ServerStudy, asker: Asker) -> Prepared:
    """Asks every connected site whether it takes part.

    A site that says nothing is at work, most likely: it is asked again after a tenth of the time.

    Args:
        study: The study.
        asker: Asks the sites.

    Raises:
        QuorumError: Too few are connected, or ready, for a round; it says who refused.
    """
    patience = asker.patience
    silent = None if patience.silent is None else max(patience.silent, study.prepare_timeout / 10)
    asker = replace(
        asker,
        patience=replace(patience, round=study.prepare_timeout, silent=silent),
        on_event=_as_preparing(study),
    )
    started = asker.clock()
    nodes = asker.connected(len(study.sites), study.enough, started)
    if len(nodes) < study.enough:
        raise QuorumError(
            f"{len(nodes)} sites are connected after {asker.clock() - started:.0f} s, "
            f"{study.enough} are needed; start the others, then resume the run"
        )
    replies = read_replies(
        asker.ask(RoundRequest(study.digest, 0, b"", Step.PREPARE), nodes, study.enough, started),
        Terms(study.digest, study.sites, study.keys),
        0,
        lambda site: Awaited(0, lambda payload: None),
        lambda site, payload: None,
        Status.READY,
    )
    known = set(replies.nodes.values())
    prepared = Prepared(
        ready=frozenset(replies.counted),
        retired=frozenset(replies.retired),
        refused=dict(replies.refused),
        nodes=frozenset(replies.came - known),
        unfit=frozenset(replies.unfit),
    )
    study.on_prepared(prepared.ready, prepared.refused)
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
    silent = set(study.sites) - prepared.ready - prepared.retired - prepared.refused.keys()
    said += [f"{site} (no answer)" for site in sorted(silent)]
    raise QuorumError(
        f"{len(prepared.ready)} of {len(study.sites)} sites take part in the study, {needed} are "
        f"needed: {', '.join(said)}; why, `cloister site status` says at each site and to nobody "
        "else; settle it with them, then resume the run or start another"
    )


def _as_preparing(study: ServerStudy) -> Callable[[str, int, str], None]:
    """Events of this question under names of their own: it is no round."""
    names = {"asked": "preparing", "answered": ""}

    def told(what: str, number: int, site: str) -> None:
        if names.get(what, what):
            study.on_event(names.get(what, what), number, site)

    return told
