"""The share of records that a site holds out, fixed for the life of its data set.

`site.toml` declares the share. The first study that the site admits with it fixes it, in an
owner-only file beside the ledger. From then on another share is refused: a smaller one would train
on records that were held out, and a larger one would score records that were trained on. So is
another key, with which other records would be held out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cloister.bounds import shortened
from cloister.client.site_file import SiteFile
from cloister.data.held_out import LARGEST_SHARE, HeldOut
from cloister.errors import BadFileError
from cloister.files import bad_file, open_file, write_whole
from cloister.json_text import read_json
from cloister.ledger.unit_key import unit_key, unit_key_file
from cloister.owner_only import FILE

# Most bytes of the file: two numbers, a fingerprint and a column's name of up to 256 characters.
_MOST_BYTES = 4096


@dataclass(frozen=True)
class HeldOutTerms:
    """What was fixed, and when.

    Attributes:
        share: The share of units that are held out.
        after: Number of the ledger's last entry at that time. Rounds charged up to it may have
            trained on the units that are held out since.
        key: Fingerprint of the key that chooses the units.
        person: Column that names the person, whose records are on one side; None: there is none.
    """

    share: float
    after: int
    key: str
    person: str | None


def terms_file(ledger: Path) -> Path:
    """Returns the place of the fixed terms."""
    return ledger.with_name(ledger.name + ".held-out")


def fixed_terms(file: SiteFile) -> HeldOutTerms | None:
    """Reads what a site's data set holds out; None: nothing was fixed yet.

    Raises:
        BadFileError: The file is damaged, `site.toml` declares another share, or the key is
            missing or another one; or the column of persons is another one.
        LedgerError: The key is damaged.
    """
    path = terms_file(file.ledger)
    try:
        with open_file(path) as opened:
            document = read_json(opened.read(_MOST_BYTES + 1), most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadFileError(
            f"{path}: cannot be read ({error}); restore it from the site's backup: it says which "
            "records are never trained on"
        ) from error
    terms = _terms(document)
    if terms is None:
        raise BadFileError(f"{path}: damaged; restore it from the site's backup")
    place = unit_key_file(file.ledger)
    if not place.exists() or unit_key(file.ledger).fingerprint != terms.key:
        raise BadFileError(
            f"{place}: {'another key' if place.exists() else 'missing'}; restore it from the "
            "site's backup: with another key, records that were held out would be trained on"
        )
    if file.site.held_out_share != terms.share:
        given = file.site.held_out_share
        raise BadFileError(
            f"{file.path}: site.held_out_share: {'none' if given is None else f'{given:g}'} given, "
            f"but this data set holds out {terms.share:g} for its life ({path.name}), so that a "
            "record that was held out is never trained on; write held_out_share = "
            f"{terms.share:g} again"
        )
    person = file.policy.privacy.person
    if person != terms.person:
        raise BadFileError(
            f"{file.path}: privacy.person: {shortened(person)} given, but the records of this data "
            f"set are held out by {shortened(terms.person)} for its life ({path.name}): by another "
            "column, persons that were held out would be trained on; write the earlier one again"
        )
    return terms


def _terms(document: object) -> HeldOutTerms | None:
    """Reads the file's content; None: it is damaged."""
    fields = document if isinstance(document, dict) else {}
    if set(fields) != {"share", "after", "key", "person"}:
        return None
    share, after, key, person = (fields[name] for name in ("share", "after", "key", "person"))
    if not isinstance(share, float) or not isinstance(key, str) or type(after) is not int:
        return None
    if not 0 < share <= LARGEST_SHARE or after < 0 or not isinstance(person, str | None):
        return None
    return HeldOutTerms(share, after, key, person)


def fix_terms(file: SiteFile, last: int) -> HeldOut | None:
    """Fixes the declared share, if this was not done before.

    Args:
        file: The site's; its ledger is begun.
        last: Number of the ledger's last entry.

    Returns:
        Which units are held out; None: the site declares no share.

    Raises:
        BadFileError: As `fixed_terms`, or the file cannot be written.
        LedgerError: The key cannot be read or written.
    """
    terms, share = fixed_terms(file), file.site.held_out_share
    if share is None:
        return None
    key = unit_key(file.ledger)
    if terms is None:
        person = file.policy.privacy.person
        fixed = HeldOutTerms(share, last, key.fingerprint, person)
        content = json.dumps(asdict(fixed)).encode()
        try:
            write_whole(terms_file(file.ledger), content, FILE)
        except OSError as error:
            raise bad_file(error, "written") from error
    return HeldOut(key.secret, share)


def held_out_of(file: SiteFile) -> HeldOut | None:
    """Returns which units a site holds out; None: nothing is fixed yet. Writes nothing.

    Raises:
        BadFileError: As `fixed_terms`.
        LedgerError: The key is damaged.
    """
    terms = fixed_terms(file)
    return None if terms is None else HeldOut(unit_key(file.ledger).secret, terms.share)
