"""The members of a study as its sites: the plan that each is offered, and how each is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.serverapp import Grid

from cloister.deployment.coordinator.journal import ready_sites
from cloister.deployment.coordinator.members import Member
from cloister.deployment.coordinator.ports import Connected
from cloister.errors import UsageError
from cloister.export.card import NO_CERTIFICATE
from cloister.privacy.plan import Plan
from cloister.recipe import Recipe, sent_document
from cloister.recipe.plan_of import plan_of
from cloister.server.certifying import Fields, collect_certificates
from cloister.server.dispatch import Timeouts
from cloister.server.ledger_heads import Heads
from cloister.server.ports import Observer
from cloister.server.run_directory import RunDirectory
from cloister.server.study import ServerStudy
from cloister.server.voice import Signed

# Seconds after which a site whose answer was lost is asked again; its agent restarts faster than
# that and then has the answer.
ASK_AGAIN = 5.0


def check_members(members: Mapping[str, Member]) -> None:
    """Refuses a study without sites.

    Raises:
        UsageError: No site takes part.
    """
    if not members:
        raise UsageError(
            "no site was approved yet; invite one (cloister member invite SITE) and approve its "
            "request"
        )


def plans_of(recipe: Recipe, members: Mapping[str, Member]) -> dict[str, Plan]:
    """Makes the plan that the recipe proposes to each site, from the sites' declarations.

    Raises:
        RefusedError: No noise meets the target.
    """
    return {name: plan_of(recipe, member.public_records) for name, member in members.items()}


def connected_sites(
    recipe: Recipe,
    run: RunDirectory,
    members: Mapping[str, Member],
    allowed: Callable[[], Mapping[str, Member]],
    key: Ed25519PrivateKey,
    heads: Path,
) -> Connected:
    """Returns the participating members, with the way in which the coordinator asks them.

    Args:
        recipe: The study's.
        run: The run's folder, which says who agreed before an interruption.
        members: The sites that take part, by name.
        allowed: Returns the present members.
        key: The coordinator's private key, which signs every question.
        heads: Folder of the last heads of each ledger.
    """
    names, federation = tuple(sorted(members)), recipe.federation
    keys = {name: member.ledger_key for name, member in members.items()}
    return Connected(
        names=names,
        patience=Timeouts(
            federation.round_timeout,
            federation.absent_timeout,
            ASK_AGAIN,
            silent=federation.absent_timeout,
        ),
        voice=Signed(key, recipe.digest(), sent_document(recipe), keys, Heads(heads)),
        ready=ready_sites(run.path) & set(names),
        keys=keys,
        # Each site says in its site.toml which of the study's ranks it trains.
        ranks=dict.fromkeys(names, frozenset(recipe.lora.ranks)),
        members=members,
        allowed=allowed,
    )


def kept_certificates(
    grid: Grid,
    study: ServerStudy,
    run: RunDirectory,
    last: int,
    most_steps: int,
    observer: Observer,
) -> dict[str, Fields]:
    """Asks all sites for their certificates, and keeps those that come in the run's folder.

    Args:
        grid: Flower's.
        study: The study.
        run: Its folder.
        last: The last closed round; 0: none, so no site has anything to certify.
        most_steps: The most steps that a plan of the study has.
        observer: Learns which sites sent none.

    Returns:
        The fields of each valid certificate, by site.
    """
    found = collect_certificates(grid, study, last, most_steps) if last else {}
    for site, (content, _) in found.items():
        run.save_certificate(site, content)
    for site in sorted(set(study.sites) - found.keys()):
        observer.note(f"{site}: {NO_CERTIFICATE}; the card says so")
    return {site: fields for site, (_, fields) in found.items()}
