"""A site's side of a round with shared noise: advertise, mask, sign, reveal.

advertise   a public key of an epoch, signed by the ledger
mask        charge the round, one gradient, a share of the noise, a mask: released by the ledger
sign        the set of sites whose updates are summed; one set per round
reveal      shares that unmask the sum of that set, once enough members signed it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from cloister.client.charged import charged
from cloister.client.policy_file import AcceptPolicy
from cloister.errors import RefusedError, RoundSpentError
from cloister.ledger.charge import Charge, Released
from cloister.ledger.ledger import Ledger
from cloister.privacy.plan import Plan
from cloister.protocol.exchange import Step
from cloister.secagg.epoch_keys import advertise
from cloister.secagg.epoch_terms import EpochTerms
from cloister.secagg.numbering import sum_number
from cloister.secagg.participant import Participant, join, mask_update, reveal, sign_set
from cloister.secagg.query import Query, from_hex


@dataclass
class EpochKeys:
    """A site's keys in the present epoch; in memory only, so that a restart ends it.

    Attributes:
        terms: The epoch's terms; None before the first epoch.
        private: Its key pair in it.
        advertisements: The advertisements of all members when the site joined.
        member: Its state of secure aggregation after joining.
    """

    terms: EpochTerms | None = None
    private: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)
    advertisements: dict[str, bytes] = field(default_factory=dict)
    member: Participant | None = None

    def advertise(self, terms: EpochTerms, site: str, sign: Callable[[bytes], bytes]) -> bytes:
        """Returns the epoch's signed public key; makes new keys if the epoch is new."""
        if self.terms != terms:
            self.terms, self.private = terms, X25519PrivateKey.generate()
            self.advertisements, self.member = {}, None
        return advertise(terms, site, self.private, sign)

    def joined(self, terms: EpochTerms, site: str, advertisements: dict[str, bytes]) -> Participant:
        """Returns this site's secure aggregation state for the epoch, joining it first.

        Raises:
            RefusedError: The site has no keys of this epoch, or joined it with other keys of its
                members.
        """
        if self.terms != terms:
            raise RefusedError(
                f"epoch {terms.epoch}: this site has no keys of it, for example after a restart; "
                "it joins the next one"
            )
        if self.member is None:
            self.member = join(terms, site, self.private, advertisements)
            self.advertisements = advertisements
        elif self.advertisements != advertisements:
            raise RefusedError(f"epoch {terms.epoch} was joined with other keys of its members")
        return self.member

    def in_round(self, terms: EpochTerms) -> Participant:
        """Returns the member's state, which exists once it has sent its mask.

        Raises:
            RefusedError: The site is not in this epoch.
        """
        if self.terms != terms or self.member is None:
            raise RefusedError(f"epoch {terms.epoch} was not joined here")
        return self.member


@dataclass(frozen=True)
class SecureExchange:
    """One exchange, as a site sees it.

    Attributes:
        site: Its name.
        ledger: Where it charges, and whose key signs.
        keys: Its keys of the epoch.
        terms: The epoch's terms, checked against plan and policy.
        question: The coordinator's question.
        number: The round.
        adapter: SHA-256 of the global adapter in the question, in hex.
        has_evaluations: Whether the study has private evaluations.
    """

    site: str
    ledger: Ledger
    keys: EpochKeys
    terms: EpochTerms
    question: Query
    number: int
    adapter: str
    has_evaluations: bool = False

    @property
    def sum(self) -> int:
        """The number of the sum, to which masks and signatures are bound."""
        evaluates = self.question.evaluates
        return sum_number(self.number, evaluates=evaluates, has_evaluations=self.has_evaluations)

    def answer(
        self, step: Step, charge: Charge, noised: Callable[[], NDArray[np.int64]]
    ) -> Released:
        """Returns what the site sends; it has a head only if the ledger released it.

        Args:
            step: The step of the protocol.
            charge: What the MASK step charges.
            noised: Returns what is summed: one batch's clipped sum, or the statistics of the
                held-out units, with this site's share of the noise.

        Raises:
            RefusedError: The question is not for this site, epoch or round.
            RoundSpentError: The round was charged before under other keys, or was interrupted.
            BudgetError: The site's budget does not cover the round.
            LedgerError: The charge could not be written; nothing was drawn.

        Guarantees:
            The round is charged before its batch is drawn; a masked update is released once, under
            one epoch's keys, and repeated byte for byte.
        """
        keys, terms = self.keys, self.terms
        if step is Step.ADVERTISE:
            return Released(keys.advertise(terms, self.site, self.ledger.sign), "")
        if step is Step.MASK:
            return self._mask(charge, noised)
        member = keys.in_round(terms)
        if step is Step.SIGN:
            keys.member, signature = sign_set(
                member,
                self.sum,
                self.question.adapter,
                self.question.survivors,
                self.ledger.sign,
            )
            return Released(signature, "")
        signatures, boxes = from_hex(self.question.signatures), from_hex(self.question.boxes)
        shares = reveal(member, self.sum, self.question.adapter, signatures, boxes)
        return Released(shares.to_bytes(), "")

    def _mask(self, charge: Charge, noised: Callable[[], NDArray[np.int64]]) -> Released:
        member = self.keys.joined(self.terms, self.site, from_hex(self.question.advertisements))
        if self.sum < member.masked:
            raise RefusedError(
                f"round {self.number} was asked after a later one: rounds must be masked in order; "
                "nothing was charged"
            )
        is_masked = member.masked == self.sum
        if self.ledger.has_charged(charge.study, self.number, charge.kind) and not is_masked:
            raise RoundSpentError(
                f"round {self.number} was charged before, under keys that are lost; it stays "
                "spent: go on with the next one"
            )
        # The charge is before what is summed is computed: after a crash in between, the round is
        # spent and no batch is drawn a second time.
        granted = self.ledger.reserve(charge)
        if isinstance(granted, Released):
            return granted
        with charged(self.number):
            self.keys.member, update = mask_update(member, self.sum, self.adapter, noised())
            return granted.release(update.to_bytes())


def agreed_terms(
    study: str, question: Query, plan: Plan, accept: AcceptPolicy, site: str, own_key: str
) -> EpochTerms:
    """Builds an epoch's terms from a question and checks them against plan and policy.

    Args:
        study: Digest of the recipe.
        question: Names the members.
        plan: The plan that the site accepted.
        accept: Its policy.
        site: Its name.
        own_key: Public key of its ledger.

    Raises:
        RefusedError: The plan's noise is not shared, the site is not a member under its own key,
            two members have the same key, or `accept.noise_partners` lacks a member's key.
    """
    if plan.sharing is None:
        raise RefusedError("secure aggregation was asked for; the plan's noise is the site's own")
    members = question.members
    if members.get(site) != own_key:
        raise RefusedError("the epoch does not list this site under its ledger's key")
    if len(set(members.values())) < len(members):
        raise RefusedError("two members of the epoch have the same key")
    unknown = sorted(
        name for name, key in members.items() if name != site and key not in accept.noise_partners
    )
    if unknown:
        raise RefusedError(
            f"accept.noise_partners: {', '.join(unknown)} would share the noise, and this site's "
            "policy does not name their ledger's key; ask them for it and add it in site.toml"
        )
    return EpochTerms(study=study, epoch=question.epoch, members=members, sharing=plan.sharing)
