"""The terms of a study at this site, which a person sees and approves, and their digest.

An approval covers one study *on these terms*. They have every constant on which the study's ε
depends at this site (`Plan`), which records are used, and whose noise is relied on. So a policy
that is loosened later, or a site that points to other records, needs a new approval; other changes
of `site.toml` need none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cloister.adapter.wire import encoded_length
from cloister.canonical import canonical
from cloister.client.acceptance import accept
from cloister.client.changes import Change, changes
from cloister.client.site_file import SiteFile
from cloister.errors import RefusedError
from cloister.privacy.plan import Plan
from cloister.privacy.votes import votes_shapes
from cloister.recipe import Recipe
from cloister.tasks.template_rules import template_sha256


@dataclass(frozen=True)
class StudyTerms:
    """A study that the site's policy accepts, with the plan that the site would run.

    Attributes:
        file: The site's file.
        recipe: The study's recipe.
        plan: The plan that the site would run, without the shapes of messages, which depend on the
            base.
    """

    file: SiteFile
    recipe: Recipe
    plan: Plan

    @property
    def study(self) -> str:
        """Digest of the study's recipe, by which approvals name the study."""
        return self.recipe.digest()

    def facts(self) -> dict[str, Any]:
        """The facts that an approval covers, as JSON values."""
        file, accept = self.file, self.file.policy.accept
        shared = self.plan.sharing is not None
        return {
            "study": self.study,
            # Digests of format 1 leave out fields that did not exist then.
            "document": hashlib.sha256(self.recipe.document().encode()).hexdigest(),
            "plan": self.plan.terms(),
            "site": file.site.name,
            "data": file.site.data,
            "ledger": file.site.ledger,
            "rank": file.site.rank,
            "isolate_units": file.policy.privacy.isolate_units,
            "noise_partners": sorted(accept.noise_partners) if shared else [],
            "min_colluding": accept.min_colluding if shared else 0,
        }

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `facts`.

        Guarantees:
            A function of the study's document and `site.toml`: no record, no ledger, no clock.
        """
        return hashlib.sha256(canonical(self.facts())).hexdigest()

    @property
    def template(self) -> str | None:
        """SHA-256 of the chat template that the study brings; None where it brings none."""
        text = self.recipe.task.chat_template
        brings = text is not None and self.recipe.task.records == "messages"
        return template_sha256(str(text)) if brings else None

    @property
    def most_bytes(self) -> tuple[int, int]:
        """Most bytes that may leave in a round, and in all rounds.

        The exact length depends on the base, which is loaded only after the approval; a longer
        message is refused. Counts of votes do not depend on it.
        """
        a_round = self.file.policy.accept.max_message_bytes
        if self.plan.votes is not None and self.plan.sharing is None:
            a_round = encoded_length(votes_shapes(self.plan.votes), "float32")
        return a_round, a_round * self.plan.num_rounds

    def tightened(self, asked: Plan) -> tuple[Change, ...]:
        """The changes that the site's policy makes to the plan.

        Args:
            asked: The study's own plan at a site of this size.
        """
        isolated = self.file.policy.privacy.isolate_units
        return changes(asked, self.plan, isolate_units=isolated)


def accepted_terms(file: SiteFile, recipe: Recipe) -> StudyTerms:
    """Accepts a study from its recipe and `site.toml` alone; nothing is loaded, fetched or opened.

    Returns:
        The study's terms here, for the person who approves it.

    Raises:
        RefusedError: The site does not take part; every reason, one per line.
    """
    plan = accept(recipe, file)
    own_rank(file, recipe)
    return StudyTerms(file, recipe, plan)


def own_rank(file: SiteFile, recipe: Recipe) -> int | None:
    """The rank of the site's adapters; None in a study of one rank.

    Raises:
        RefusedError: The study has no such rank.
    """
    if not recipe.lora.ranks:
        return None
    rank = file.site.rank or recipe.lora.r
    if rank not in recipe.lora.ranks:
        known = ", ".join(str(other) for other in sorted(set(recipe.lora.ranks)))
        raise RefusedError(
            f"site.rank: {rank} at this site; lora.ranks of the study has {known}: set one of these"
        )
    return rank
