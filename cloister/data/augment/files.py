"""Writes a new file with each record and its copies, all in one unit per record, and a log."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.data.augment.copies import METHODS, Method, Paraphrase, Variation
from cloister.data.augment.synonyms import Synonyms
from cloister.data.detected import Detected, detect_form
from cloister.data.outputs import check_new, json_text, new_file
from cloister.data.roles import Roles, find_roles, refuse_items
from cloister.data.step_log import log_of
from cloister.data.step_writing import DataStep, check_no_log, write_step
from cloister.data.unit_column import AUGMENT, UNIT, is_augmented
from cloister.errors import DataError, UsageError
from cloister.files import bad_file, identity_of

# EDA (Wei and Zou 2019, arXiv:1901.11196), section 3 and table 3: its advice for 5,000 records and
# more, and the largest number that it tried.
COPIES, MOST_COPIES = 4, 32
SHARE = 0.1
# The methods that need nothing but the records.
PLAIN: tuple[Method, ...] = ("drop", "swap", "typos")
# Rows between two progress messages.
TOLD_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """The options of `augment_file`.

    Attributes:
        copies: Largest number of copies of each record.
        how: The methods; empty: `PLAIN`, and those whose input is given below.
        share: Share of a text's words that a method changes.
        seed: Equal files, options and seeds give equal bytes.
        columns: Columns by role (`text`, `label`, `tokens`, …) that the caller names.
        synonyms: The list for `synonyms` (`read_synonyms`).
        paraphrase: The function for `paraphrase` (`cloister.models.paraphrase`). Its model must not
            have been trained on these records: one record would reach another's copies.
        model: The name of that model in the log.
    """

    copies: int = COPIES
    how: Sequence[Method] = ()
    share: float = SHARE
    seed: str = ""
    columns: Mapping[str, str | None] = field(default_factory=dict)
    synonyms: Synonyms | None = None
    paraphrase: Paraphrase | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.copies <= MOST_COPIES:
            raise UsageError(
                f"--copies: {self.copies} given; a whole number from 1 to {MOST_COPIES} is needed"
            )
        if not 0 < self.share <= 0.5:
            raise UsageError(
                f"--share: {self.share} given; above 0 and at most 0.5 is needed, because a text "
                "with more changes keeps little of its meaning"
            )
        if unknown := [name for name in self.how if name not in METHODS]:
            raise UsageError(
                f"--how: unknown method {unknown[0]!r}; give some of {', '.join(METHODS)}"
            )
        for name, given in (("synonyms", self.synonyms), ("paraphrase", self.paraphrase)):
            if name in self.how and given is None:
                raise UsageError(f"--how: {name} also needs --{name}; give it")
            if self.how and name not in self.how and given is not None:
                raise UsageError(f"--{name}: has no effect without {name} in --how; add it there")

    def methods(self) -> tuple[Method, ...]:
        """Returns the methods that are used, in the order of `METHODS`."""
        given = [*PLAIN]
        given += ["synonyms"] if self.synonyms is not None else []
        given += ["paraphrase"] if self.paraphrase is not None else []
        return tuple(name for name in METHODS if name in (self.how or given))

    def to_json(self) -> dict[str, Any]:
        """Returns, as JSON values, everything that the copies depend on."""
        synonyms = None
        if self.synonyms is not None:
            pairs = repr(sorted(self.synonyms.others.items())).encode()
            synonyms = hashlib.sha256(pairs).hexdigest()
        return {
            "copies": self.copies,
            "how": list(self.methods()),
            "share": self.share,
            "seed": self.seed,
            "synonyms_sha256": synonyms,
            "model": self.model,
        }


@dataclass(frozen=True, kw_only=True)
class AugmentReport:
    """Counts of what was written: true counts of private records, for their owner only.

    Attributes:
        records: Rows that were read.
        rows: Rows that were written, including those that were read.
        largest: Largest number of rows of one record.
        short: Records with fewer copies than asked for: a short text has few different ones.
        methods: Copies by the method that made them.
        roles: The columns by role.
        guessed: The roles that the caller did not give.
    """

    records: int
    rows: int
    largest: int
    short: int
    methods: Mapping[str, int]
    roles: Mapping[str, str]
    guessed: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "records": self.records,
            "rows": self.rows,
            "most_rows_of_a_record": self.largest,
            "records_with_fewer_copies": self.short,
            "copies_by_method": dict(self.methods),
            "columns": dict(self.roles),
            "guessed": list(self.guessed),
        }


def augment_file(
    source: Path | Detected,
    out: Path,
    options: AugmentOptions | None = None,
    *,
    progress: Callable[[int], object] | None = None,
) -> AugmentReport:
    """Writes a file's rows, after each its copies, and `cloister_unit` in all of them.

    Args:
        source: The file, or its detected form (`detect_form`); it is not changed.
        out: The new file: `.jsonl`, `.csv` or `.parquet`.
        options: The options; absent: `COPIES` copies by `PLAIN`.
        progress: Is called now and then with the number of rows read so far.

    Returns:
        The counts, which the log beside `out` has too.

    Raises:
        UsageError: `out` exists or has another ending, or a column does not exist.
        DataError: The file is damaged, changed while it was read, has copies already, or no row of
            it can be varied; nothing is written then.

    Guarantees:
        No units are coupled: the copies of a row are a function of that row alone, and share a unit
        with no other row. How a study uses them is in `cloister.training.units`.
    """
    options = options or AugmentOptions()
    check_new(out)
    check_no_log(out)
    try:
        form = source if isinstance(source, Detected) else detect_form(source)
        before = identity_of(form.path)
        if is_augmented(form.path):
            raise _twice(form.path)
        roles = find_roles(form.rows(), options.columns)
        refuse_items(roles, "augment")
        with new_file(out) as (writer, content):
            report = _write(form, roles, options, writer.add, progress)
            writer.end()
            if identity_of(form.path) != before:
                raise DataError(
                    f"{form.path}: the file changed while it was read; run the command again"
                )
            step = DataStep(AUGMENT, options.to_json(), report.to_json())
            write_step(form, out, content, step)
    except BaseException as error:
        if not os.path.lexists(out):  # a log without its file would be misleading
            log_of(out).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise bad_file(error) from error
        raise
    return report


def _write(
    form: Detected,
    roles: Roles,
    options: AugmentOptions,
    add: Callable[[Mapping[str, Any], str], None],
    progress: Callable[[int], object] | None,
) -> AugmentReport:
    variation = Variation(
        how=options.methods(),
        share=options.share,
        seed=options.seed,
        synonyms=options.synonyms,
        paraphrase=options.paraphrase,
    )
    same: Counter[bytes] = Counter()
    methods: Counter[str] = Counter()
    records = rows = largest = short = 0
    for number, row in form.rows():
        where = f"{form.path.name}, row {number}"
        if UNIT in row:
            raise _twice(form.path)
        try:
            content = hashlib.sha256(json_text(row).encode("utf-8", "surrogatepass")).digest()
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        unit = variation.unit_of(row, same[content])
        same[content] += 1
        copies = variation.copies(row, roles, options.copies)
        for made in (row, *(new for _, new in copies)):
            add({**made, UNIT: unit}, where)
        methods.update(method for method, _ in copies)
        records += 1
        rows += 1 + len(copies)
        largest = max(largest, 1 + len(copies))
        short += len(copies) < options.copies
        if progress is not None and records % TOLD_EVERY == 0:
            progress(records)
    if rows == records:
        raise DataError(
            f"{form.path}: no row can be varied by {', '.join(options.methods())}; name the "
            "columns, or add a method with --how"
        )
    return AugmentReport(
        records=records,
        rows=rows,
        largest=largest,
        short=short,
        methods={name: methods[name] for name in METHODS if methods[name]},
        roles=roles.columns(),
        guessed=roles.guessed,
    )


def _twice(path: Path) -> DataError:
    return DataError(
        f"{path}: already has copies of records (column {UNIT}); augment the original file, with "
        "all methods at once"
    )
