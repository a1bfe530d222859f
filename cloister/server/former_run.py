"""Reads a finished run with whose adapter another study begins, without base, records or torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.adapter.wire import digest, encode
from cloister.errors import AdapterFormatError, BadFileError, LedgerError, UsageError
from cloister.evidence.began import Began, FormerSite, read_began, with_earlier
from cloister.evidence.certificate_alone import MOST_BYTES
from cloister.evidence.fingerprint import MOST_TOLD
from cloister.files import bad_file, open_file, write_whole
from cloister.json_text import read_json
from cloister.ledger.certificate import MOST_STATED, entry_of
from cloister.ledger.chain import Head
from cloister.ledger.ledger import key_file
from cloister.ledger.stated import Stated
from cloister.ledger.storage import LedgerFile
from cloister.ledger.unit_key import unit_key_file
from cloister.ledger.verify import verify
from cloister.owner_only import FILE, private_folder
from cloister.recipe.continued import Former
from cloister.server.run_directory import RunDirectory

# What files of another form raise where they are read.
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True, kw_only=True)
class FormerRun:
    """A finished run with whose adapter another study begins.

    Attributes:
        run: Its folder.
        former: The facts with which the new study's recipe is compared.
        payload: The released adapter in wire format.
        began: The new run's statement about it.
    """

    run: RunDirectory
    former: Former
    payload: bytes
    began: Began


def read_former(path: Path) -> FormerRun:
    """Reads a finished run's recipe, adapter and the state of its ledgers.

    Args:
        path: The run's folder; at a coordinator, `runs/NAME` in the coordinator's folder.

    Raises:
        UsageError: The folder is not that of a run, or the run is not finished.
        BadFileError: A file in it is missing or damaged.
        RecipeError: Its recipe is damaged.
    """
    run = RunDirectory.reopen(path)
    if not (run.adapter / "README.md").is_file():
        raise UsageError(
            f"--from: {path} is not finished, so it has no adapter to begin with; resume the run, "
            "or give a finished one"
        )
    try:
        recipe, state = run.recipe(), run.last()
        released = run.load_best(state)
        payload = encode(released.adapter)
        sites = _sites(run)
        base = _base_sha256(run)
    except (*_DAMAGED, LedgerError, AdapterFormatError) as error:
        raise BadFileError(
            f"--from: {path} cannot be read ({error}); restore the run's folder whole (with "
            "checkpoint, adapter, ledgers or certificates), or give another run"
        ) from error
    adapter = digest(payload)
    return FormerRun(
        run=run,
        former=Former(run=run.path.name, recipe=recipe, base_sha256=base, adapter=adapter),
        payload=payload,
        began=Began(
            run=run.path.name,
            study=recipe.digest(),
            adapter=adapter,
            rounds=state.round,
            sites=sites,
        ),
    )


def _base_sha256(run: RunDirectory) -> str:
    """Returns the hash of the base's weights, which the run's adapter states."""
    with open_file(run.adapter / "cloister.json") as file:
        document = read_json(file.read(MOST_TOLD + 1), most_bytes=MOST_TOLD)
    return str(document["model"]["sha256"])


def _sites(run: RunDirectory) -> dict[str, FormerSite | None]:
    """Returns each site's promise and ledger head at the end, from certificate or ledger.

    A ledger that lacks entries which the run saw in it is refused: it would let the next study
    spend more.

    If the run itself began with another run, the promise includes that run's.
    """
    found: dict[str, FormerSite | None] = dict.fromkeys(_participants(run))
    for path in sorted((run.path / "certificates").glob("*.certificate.json")):
        with open_file(path) as file:
            certificate = entry_of(read_json(file.read(MOST_BYTES + 1), most_bytes=MOST_BYTES))
        fields = read_json(certificate.body, most_bytes=MOST_STATED)
        alone = fields["promise_alone"]
        found[path.name.removesuffix(".certificate.json")] = FormerSite(
            promise=Stated.from_json(fields["promise"]),
            head=Head(**fields["ledger"]),
            key=str(fields["key"]),
            alone=None if alone is None else Stated.from_json(alone),
        )
    heads = run.heads()
    for site, path in run.ledgers().items():
        anchors = [heads[site]] if site in heads else []
        verdict = verify(LedgerFile(path).entries(), str(path), anchors=anchors)
        found[site] = FormerSite(
            promise=verdict.promise,
            head=verdict.head,
            key=verdict.public_key,
            alone=verdict.promise_alone,
        )
    before = read_began(run.path)
    earlier = {} if before is None else before.sites
    return {
        site: with_earlier(earlier[site], found.get(site), took_part=site in found)
        if site in earlier
        else found[site]
        for site in sorted({*earlier, *found})
    }


def _participants(run: RunDirectory) -> list[str]:
    """Returns the sites that sent an update in a closed round."""
    return sorted({site for row in run.metrics() for site in row["received"]})


def copy_ledgers(former: RunDirectory, run: RunDirectory) -> None:
    """Copies the ledgers of a simulation's sites, with their keys, into a new run.

    A data set has one ledger for its lifetime, so the new study is charged after the old one.

    Args:
        former: The finished run's folder.
        run: The new run's folder.

    Raises:
        LedgerError: A ledger is missing or damaged.
        BadFileError: A file cannot be copied.
    """
    for site, ledger in former.ledgers().items():
        try:
            private_folder(run.ledger(site).parent)
            LedgerFile(ledger).snapshot(run.ledger(site))
            write_whole(key_file(run.ledger(site)), key_file(ledger).read_bytes(), FILE)
            if (units := unit_key_file(ledger)).exists():  # its units keep their groups
                write_whole(unit_key_file(run.ledger(site)), units.read_bytes(), FILE)
        except OSError as error:
            raise bad_file(error, "copied") from error
