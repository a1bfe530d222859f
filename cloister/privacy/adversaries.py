"""Names the adversaries against whom an ε holds, and gives the events that all other sites see.

If a site adds all of its noise, ε holds against anybody who sees its releases. If noise is shared,
ε holds against coalitions with at most c other sites, with or without the coordinator. A coalition
that knows more than c shares can subtract them. It needs only the adapters for that, since each
step is a function of the noisy sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cloister.privacy.accounting import SMALLEST_NOISE
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.shared_noise import SHARE_LEFT
from cloister.privacy.units import Adversary

Charged = Iterable[tuple[Plan, GaussianEvent]]

# All other sites together, as a certificate names them.
ALL_OTHERS = (f"{Adversary.COORDINATOR}-with-all-{Adversary.OTHER_SITES}",)
_SOME = re.compile(rf"{Adversary.COORDINATOR}-with-(\d{{1,9}})-{Adversary.OTHER_SITES}")


def colluding(plans: Iterable[Plan]) -> int | None:
    """Returns c: how many other sites may collude, with or without the coordinator.

    None: all of them, because each site adds all of its noise. With several plans the smallest c
        counts.
    """
    fewest = [plan.sharing.colluding for plan in plans if plan.sharing is not None]
    return min(fewest, default=None)


def names(plans: Iterable[Plan]) -> list[str]:
    """Returns the adversaries that ε holds against, by their names in a certificate."""
    most = colluding(plans)
    if most is None:
        return [adversary.value for adversary in Adversary]
    return [f"{Adversary.COORDINATOR}-with-{most}-{Adversary.OTHER_SITES}", Adversary.PUBLIC.value]


def most_colluding(named: Sequence[str]) -> int | None:
    """Returns c of the names that a certificate has for adversaries; None: all other sites."""
    return next((int(found[1]) for name in named if (found := _SOME.fullmatch(name))), None)


def weaker(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the adversaries against whom both of two promises hold, by their names.

    A coalition of fewer sites sees less, so a promise against more sites holds against it too.
    """
    in_first, in_second = most_colluding(first), most_colluding(second)
    if in_first == in_second:
        return tuple(name for name in second if name in first)
    if in_second is None or (in_first is not None and in_first < in_second):
        return first
    return second


def is_name(given: object) -> bool:
    """Whether this is an adversary's name in a certificate."""
    known = (*ALL_OTHERS, *(adversary.value for adversary in Adversary))
    return isinstance(given, str) and (given in known or _SOME.fullmatch(given) is not None)


def words(plans: Iterable[Plan]) -> str:
    """Returns the adversaries that ε holds against, in words that follow "against"."""
    return words_of(names(plans))


def words_of(named: Sequence[str]) -> str:
    """Turns the names that a certificate has for adversaries into words that follow "against"."""
    if tuple(named) == ALL_OTHERS:
        return "the coordinator with all other sites"
    most = most_colluding(named)
    if most is None:
        return "the coordinator, the other sites and the public"
    if most == 0:
        return (
            "the coordinator and the public, but no other site, which knows its part of the noise"
        )
    return f"the public and the coordinator, with at most {most} of the other sites"


def alone(charged: Charged) -> list[GaussianEvent] | None:
    """Returns the charged events as a coordinator that colludes with all other sites sees them.

    Those sites subtract their own shares of the noise, so each event has only this site's share.

    Args:
        charged: Events with the plan of each.

    Returns:
        Events with less noise, not private if too little is left. None if no noise is shared: then
        the stated events hold against them too.
    """
    pairs = list(charged)
    if colluding(plan for plan, _ in pairs) is None:
        return None
    return [_alone(plan, event) for plan, event in pairs]


def _alone(plan: Plan, event: GaussianEvent) -> GaussianEvent:
    if plan.sharing is None:
        return event
    share = event.noise_multiplier * math.sqrt(SHARE_LEFT / plan.sharing.honest)
    if share < SMALLEST_NOISE:
        return replace(event, is_private=False)
    return replace(event, noise_multiplier=share)
