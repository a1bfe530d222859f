"""Reads what a finished model's sites were promised, from their certificates or ledgers.

Only a file that says so counts: a coordinator's plan is not what a site did. A site that took part
and left neither certificate nor ledger has an unknown promise, which counts as ε = ∞.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cloister.errors import CloisterError, LedgerError, RefusedError
from cloister.evidence.began import FormerSite, read_began, with_earlier
from cloister.evidence.certificate_alone import MOST_BYTES, check_alone
from cloister.evidence.site_facts import SiteFacts, site_facts
from cloister.files import open_file
from cloister.json_text import read_json
from cloister.ledger.certificate import MOST_STATED, entry_of
from cloister.ledger.certificate_forms import statement
from cloister.ledger.chain import Head
from cloister.ledger.stated import Stated
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.tuning.tuning_file import TUNING_FILE, read_tuning

ENDING = ".certificate.json"
# Stands for sites that may have taken part and left nothing.
OTHERS = "sites that are not named"


def site_promises(folder: Path, recipe: Recipe, adapter: str) -> dict[str, FormerSite | None]:
    """Returns the promises to each site of a run, and of the runs with which it began.

    Args:
        folder: The run's folder.
        recipe: Its recipe.
        adapter: Fingerprint of the adapter that the study trained (`evidence.fingerprint`).

    Returns:
        By site, in order of their names, with what holds against all other sites together; None:
        the site took part, and its promise is not known. A site with another ledger in the run
        before has the sum of both.

    Raises:
        LedgerError: A ledger or certificate is damaged, or belongs to another study.
    """
    run, digest = RunDirectory(folder), recipe.digest()
    rows, began = run.metrics(), read_began(folder)
    found: dict[str, FormerSite | None] = {site: None for row in rows for site in row["received"]}
    for path in sorted((folder / "certificates").glob(f"*{ENDING}")):
        site = path.name.removesuffix(ENDING)
        found[site] = _of_certificate(path, site, digest, adapter, recipe.most_steps)
    heads = run.heads()
    for site, ledger in run.ledgers().items():
        if site in found:
            found[site] = _of_ledger(ledger, digest, heads.get(site))
    # Only whole figures of all rounds say who took part; a version from a registry has none.
    if found and not _is_whole(run, [int(row["round"]) for row in rows]):
        found[OTHERS] = None
    if recipe.study.start is not None and began is None:
        found[OTHERS] = None  # those of the run with which it began
    earlier = {} if began is None else began.sites
    return {
        site: with_earlier(earlier[site], found.get(site), took_part=site in found)
        if site in earlier
        else found[site]
        for site in sorted({*earlier, *found})
    }


def _is_whole(run: RunDirectory, rounds: Sequence[int]) -> bool:
    """Returns whether a run's figures have every closed round."""
    try:
        return list(rounds) == list(range(1, run.last().round + 1))
    except CloisterError:  # no state beside them, so that it cannot be told
        return False


def _of_certificate(path: Path, site: str, digest: str, adapter: str, steps: int) -> FormerSite:
    """Checks a certificate by the key in it; who holds that key is for an audit to find out.

    Raises:
        LedgerError: It is damaged, or is about another site, study or adapter.
    """
    try:
        with open_file(path) as file:
            content = file.read(MOST_BYTES + 1)
        entry = entry_of(read_json(content, most_bytes=MOST_BYTES))
        key = str(read_json(entry.body, most_bytes=MOST_STATED)["key"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{path}: not a certificate ({error}); restore it") from error
    fields = check_alone(content, site=site, study=digest, key=key, most_steps=steps)
    if fields["adapter"] and fields["adapter"] != adapter:
        raise LedgerError(f"{path}: is about another adapter than this one; restore the adapter")
    return _promised(site_facts(fields), Head(**fields["ledger"]), key)


def _of_ledger(path: Path, digest: str, head: Head | None) -> FormerSite:
    """Returns what a simulated site's ledger promises, if it charged this study.

    Raises:
        LedgerError: It is not valid, lacks the head that the run saw in it, or never charged this
            study.
    """
    anchors = [] if head is None else [head]
    verdict = verify(LedgerFile(path).entries(), str(path), anchors=anchors)
    try:
        facts = site_facts(statement(verdict, digest))
    except CloisterError as error:
        raise LedgerError(f"{path}: {error}; restore the ledger of this run") from error
    return _promised(facts, verdict.head, verdict.public_key)


def _promised(facts: SiteFacts, head: Head, key: str) -> FormerSite:
    return FormerSite(promise=facts.promise, head=head, key=key, alone=facts.promise_alone)


def check_promised(promises: Mapping[str, Stated | None], place: Path, *, is_asked: bool) -> None:
    """Refuses a model whose ε is ∞ or not known, unless the user asked for it.

    Args:
        promises: By site; empty: nothing is known about the model.
        place: The model, for messages.
        is_asked: Whether the user said that records without a promise are wanted.

    Raises:
        RefusedError: A promise is missing or infinite.
    """
    if is_asked:
        return
    remedy = (
        "Give the folder of a run whose sites' certificates or ledgers are in it. With "
        "--without-promise records are written all the same, and their card says ε = ∞"
    )
    if not promises:
        raise RefusedError(f"{place}: no certificate, so nothing is known of its ε. {remedy}")
    missing = [site for site, one in promises.items() if one is None]
    if missing:
        raise RefusedError(f"{place}: no certificate of {', '.join(missing[:5])}. {remedy}")
    open_ones = [
        site for site, one in promises.items() if one is not None and one.epsilon == float("inf")
    ]
    if open_ones:
        raise RefusedError(
            f"{place}: was trained without privacy at {', '.join(open_ones[:5])} (ε = ∞). {remedy}"
        )


def check_no_trial(folder: Path, place: Path) -> None:
    """Refuses a trial of a search on private records, whose ledger shows earlier trials only.

    Args:
        folder: The run's folder.
        place: The model, for messages.

    Raises:
        RefusedError: It is one: the scores of all trials chose it, so its ε is the search's.
    """
    if not (folder.parent / TUNING_FILE).is_file():
        return
    budget = read_tuning(folder.parent).declared.get("budget")
    if budget is not None:
        raise RefusedError(
            f"{place}: is a trial of a search on private records, and all trials chose it: its ε "
            f"is the search's budget, {budget:g}, and not that of its own ledger. Run best.toml as "
            "a study of its own, whose ε adds to that; --without-promise writes ε = ∞ on the card"
        )
