"""Reads what a finished model's sites were promised, from their certificates or ledgers.

Only a file that says so counts: a coordinator's plan is not what a site did. A site that took part
and left neither certificate nor ledger has an unknown promise, which counts as ε = ∞.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloister.errors import CloisterError, LedgerError, RefusedError
from cloister.evidence.began import read_began
from cloister.evidence.certificate_alone import MOST_BYTES, check_alone
from cloister.evidence.site_facts import site_facts
from cloister.files import open_file
from cloister.json_text import read_json
from cloister.ledger.certificate import MOST_STATED, entry_of
from cloister.ledger.certificate_forms import statement
from cloister.ledger.stated import Stated
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.recipe import Recipe
from cloister.server.run_directory import RunDirectory

ENDING = ".certificate.json"


def site_promises(folder: Path, recipe: Recipe) -> dict[str, Stated | None]:
    """Returns the promise to each site of a run, and of the runs with which it began.

    Args:
        folder: The run's folder.
        recipe: Its recipe.

    Returns:
        By site, in order of their names; None: the site took part, and its promise is not known.

    Raises:
        LedgerError: A ledger or certificate is damaged, or belongs to another study.
    """
    run, digest = RunDirectory(folder), recipe.digest()
    found: dict[str, Stated | None] = {
        site: None for row in run.metrics() for site in row["received"]
    }
    began = read_began(folder)
    if began is not None:
        found |= {
            site: None if former is None else former.promise for site, former in began.sites.items()
        }
    steps = recipe.training.local_steps * recipe.federation.num_rounds
    for path in sorted((folder / "certificates").glob(f"*{ENDING}")):
        site = path.name.removesuffix(ENDING)
        found[site] = _of_certificate(path, site, digest, steps)
    for site, ledger in run.ledgers().items():
        if site in found:
            found[site] = _of_ledger(ledger, digest)
    return dict(sorted(found.items()))


def _of_certificate(path: Path, site: str, digest: str, steps: int) -> Stated:
    """Checks a certificate by the key in it; who holds that key is for an audit to find out."""
    try:
        with open_file(path) as file:
            content = file.read(MOST_BYTES + 1)
        entry = entry_of(read_json(content, most_bytes=MOST_BYTES))
        key = str(read_json(entry.body, most_bytes=MOST_STATED)["key"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{path}: not a certificate ({error}); restore it") from error
    fields = check_alone(content, site=site, study=digest, key=key, most_steps=steps)
    return site_facts(fields).promise


def _of_ledger(path: Path, digest: str) -> Stated:
    """Returns what a simulated site's ledger promises, if it charged this study."""
    verdict = verify(LedgerFile(path).entries(), str(path))
    try:
        return site_facts(statement(verdict, digest)).promise
    except CloisterError as error:
        raise LedgerError(f"{path}: {error}; restore the ledger of this run") from error


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
