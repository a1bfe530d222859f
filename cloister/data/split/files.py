"""Splits a file of records into a folder of new files, with a log beside each."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloister.data.config import FEWEST_FOLDS, MOST_FOLDS
from cloister.data.detected import Detected, detect_form
from cloister.data.outputs import ENDINGS, RowWriter, check_place, json_text, new_file
from cloister.data.split.sides import (
    SIDES,
    Shares,
    Side,
    by_site,
    by_time,
    folded,
    furthest,
    hashed,
    stratified,
    stratified_several,
    usual_label,
)
from cloister.data.step_writing import DataStep, write_step
from cloister.data.unit_column import UNIT
from cloister.data.values import Moment, Number, Row, Value, shown
from cloister.errors import DataError, UsageError
from cloister.files import bad_file, identity_of, sync_folder
from cloister.owner_only import private_folder

By = Literal["unit", "label", "time", "site"]
# Rows between two progress messages.
TOLD_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """The options of `split_file`.

    Attributes:
        by: `unit`: by a hash of the unit; `label`: stratified by label, or by each label of a
            list, which couples units; `time`: by moments from which records are held out; `site`:
            by whole sites.
        unit: Column of persons, none of whom is on two sides; absent: each record is a unit, with
            its copies (`cloister_unit`), and records that are equal in every column are one.
        shares: For `unit` and `label`: the shares of the sides.
        column: The column for `label`, `time` and `site`; absent: the column of that name.
        test_from: For `time`: the first moment of the test side.
        validation_from: For `time`: the first moment of the validation side; absent: there is none.
        test_sites: For `site`: the sites of the test side.
        validation_sites: For `site`: the sites of the validation side.
        folds: For `unit`: the number of equal parts in place of the three sides; None: the sides.
        label_separator: For `label`: separates several labels in a cell of text, as a CSV file has
            them; None: a cell of text is one label.

    Raises:
        UsageError: Folds are given with another `by` than `unit`, or are too few or too many; or a
            separator of labels with another `by` than `label`, or an empty one.
    """

    by: By = "unit"
    unit: str | None = None
    shares: Shares = field(default_factory=Shares)
    column: str | None = None
    test_from: str | None = None
    validation_from: str | None = None
    test_sites: Sequence[str] = ()
    validation_sites: Sequence[str] = ()
    folds: int | None = None
    label_separator: str | None = None

    def __post_init__(self) -> None:
        if self.label_separator is not None and self.by != "label":
            raise UsageError(
                f"--label-separator: only for --by label, but --by {self.by} is given; leave it out"
            )
        if self.label_separator == "":
            raise UsageError("--label-separator: empty; give the text between two labels")
        if self.folds is None:
            return
        if self.by != "unit":
            raise UsageError(
                f"--folds: works by unit only, but --by {self.by} is given; leave --by out"
            )
        if not FEWEST_FOLDS <= self.folds <= MOST_FOLDS:
            raise UsageError(
                f"--folds: {self.folds} given; {FEWEST_FOLDS} to {MOST_FOLDS} are needed"
            )

    @property
    def couples_units(self) -> bool:
        """Returns whether a unit's side may depend on other units."""
        return self.by == "label"

    def to_json(self) -> dict[str, Any]:
        """Returns the options that decide on sides, as JSON values."""
        found: dict[str, Any] = {"by": self.by, "unit": self.unit}
        if self.folds is not None:
            return found | {"folds": self.folds, "salt": self.shares.salt}
        if self.by in ("unit", "label"):
            shares = self.shares
            found |= {"validation": shares.validation, "test": shares.test, "salt": shares.salt}
        if self.by != "unit":
            found["column"] = self.column or self.by
        if self.label_separator is not None:
            found["label_separator"] = self.label_separator
        if self.by == "time":
            found |= {"test_from": self.test_from, "validation_from": self.validation_from}
        if self.by == "site":
            found |= {"test": list(self.test_sites), "validation": list(self.validation_sites)}
        return found


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """Counts of what was written: true counts of private records, for their owner only.

    Attributes:
        rows: Rows by side.
        units: Units by side.
        couples_units: Whether a unit's side may depend on other units.
    """

    rows: Mapping[str, int]
    units: Mapping[str, int]
    couples_units: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        return {
            "rows": dict(self.rows),
            "units": dict(self.units),
            "couples_units": self.couples_units,
        }


def split_file(
    source: Path | Detected,
    out: Path,
    plan: SplitPlan,
    *,
    ending: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> SplitReport:
    """Writes `train`, `validation` and `test` files into a new folder.

    Args:
        source: The file, or its detected form (`detect_form`); it is not changed.
        out: The folder, which must not exist.
        plan: The options.
        ending: The files' ending, one of `ENDINGS`; absent: the source's, or `.jsonl`.
        progress: Is called now and then with the number of rows so far; the file is read twice.

    Raises:
        UsageError: `out` exists, the plan lacks an option or names a column of persons that does
            not exist, or a side would be empty.
        DataError: The file is damaged or changed while it was read, or a row lacks the value that
            decides on its side; nothing is written then.

    Guarantees:
        No unit is on two sides, and each row of the source is in one file, in the same order.
    """
    check_place(out, what="folder")
    stage = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        form = source if isinstance(source, Detected) else detect_form(source)
        before = identity_of(form.path)
        _check_unit(form, plan.unit)
        sides = _sides(form, plan)
        units: Counter[str] = Counter(sides.values())
        wanted = _wanted(plan)
        if empty := [side for side in wanted if not units[side]]:
            raise UsageError(
                f"the {empty[0]} side would be empty; give other shares, moments or sites, another "
                "--salt, or a larger file"
            )
        private_folder(stage)
        rows = _write(form, stage, plan, sides, ending or _own_ending(form), progress)
        if identity_of(form.path) != before:
            raise _changed(form.path)
        stage.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise bad_file(error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return SplitReport(rows=rows, units=units, couples_units=plan.couples_units)


def _write(
    form: Detected,
    stage: Path,
    plan: SplitPlan,
    sides: Mapping[str, str],
    ending: str,
    progress: Callable[[int], object] | None,
) -> dict[str, int]:
    rows: dict[str, int] = dict.fromkeys(_wanted(plan), 0)
    with ExitStack() as files:
        writers: dict[str, tuple[RowWriter, Path]] = {
            side: files.enter_context(new_file(stage / f"{side}{ending}")) for side in rows
        }
        for unit, number, row in _units(form, plan.unit):
            if (side := sides.get(unit)) is None:  # it has none: the rows were others before
                raise _changed(form.path)
            writers[side][0].add(row, f"{form.path.name}, row {number}")
            rows[side] += 1
            if progress is not None and sum(rows.values()) % TOLD_EVERY == 0:
                progress(sum(rows.values()))
        for name, (writer, content) in writers.items():
            writer.end()
            counts = {"side": name, "rows": rows[name]}
            step = DataStep("split", plan.to_json(), counts, plan.couples_units)
            write_step(form, stage / f"{name}{ending}", content, step)
    return rows


def _wanted(plan: SplitPlan) -> tuple[str, ...]:
    """Returns the sides, or folds, of a plan."""
    if plan.folds is not None:
        return tuple(f"fold-{number}" for number in range(1, plan.folds + 1))
    has_validation = {
        "unit": plan.shares.validation > 0,
        "label": plan.shares.validation > 0,
        "time": plan.validation_from is not None,
        "site": bool(plan.validation_sites),
    }[plan.by]
    has_test = plan.shares.test > 0 or plan.by in ("time", "site")
    left_out = ([] if has_validation else ["validation"]) + ([] if has_test else ["test"])
    return tuple(side for side in SIDES if side not in left_out)


def _check_unit(form: Detected, column: str | None) -> None:
    """Refuses a column of persons that no row has: each record would silently be a unit."""
    if column is not None and not any(column in row for _, row in form.rows()):
        held = ", ".join(shown(name) for name in form.names()[:12])
        raise UsageError(
            f"--unit: {form.path} has no column {shown(column)!r} (found: {held}); name the column "
            "of persons"
        )


def _sides(form: Detected, plan: SplitPlan) -> Mapping[str, str]:
    """Returns the side, or fold, of every unit."""
    if plan.folds is not None:
        return {
            unit: folded(unit, plan.folds, plan.shares.salt)
            for unit in dict.fromkeys(unit for unit, _, _ in _units(form, plan.unit))
        }
    if plan.by == "unit":
        return {
            unit: hashed(unit, plan.shares)
            for unit in dict.fromkeys(unit for unit, _, _ in _units(form, plan.unit))
        }
    if plan.by == "label":
        return _by_label(form, plan)
    side_of = _rule(plan)
    found: dict[str, Side] = {}
    for unit, number, row in _units(form, plan.unit):
        try:
            side = side_of(_cell(row, plan, form, number))
        except UsageError as error:
            raise DataError(
                f"{form.path.name}, row {number}: {plan.column or plan.by}: {error}; correct the "
                "row"
            ) from error
        found[unit] = furthest([found.get(unit, "train"), side])
    return found


def _by_label(form: Detected, plan: SplitPlan) -> Mapping[str, str]:
    counts: dict[str, Counter[str]] = {}
    have_several = False
    for unit, number, row in _units(form, plan.unit):
        own = counts.setdefault(unit, Counter())
        several = _several(row.get(plan.column or plan.by), plan.label_separator)
        have_several |= several is not None
        own.update([_cell(row, plan, form, number)] if several is None else several)
    if have_several:
        return stratified_several({unit: own.keys() for unit, own in counts.items()}, plan.shares)
    labels = {unit: usual_label(own.elements()) for unit, own in counts.items()}
    return stratified(labels, plan.shares)


def _several(value: Value, separator: str | None) -> list[str] | None:
    """Returns the labels of a cell, empty if it has none; None: it is not a list of labels."""
    if isinstance(value, str):
        if separator is None:
            return None
        return [part.strip() for part in value.split(separator) if part.strip()]
    if not isinstance(value, Sequence):
        return None
    found = [_spelled(one) for one in value]
    return [one for one in found if one] if all(found) else None


def _rule(plan: SplitPlan) -> Callable[[str], Side]:
    if plan.by == "site":
        return by_site(plan.test_sites, plan.validation_sites)
    if plan.test_from is None:
        raise UsageError("--test-from: missing; --by time needs the first moment of the test side")
    return by_time(plan.test_from, plan.validation_from)


def _units(form: Detected, column: str | None) -> Iterator[tuple[str, int, Row]]:
    """Yields all rows, each after its unit's identity and its number."""
    for number, row in form.rows():
        try:
            unit = _unit(row, column)
        except DataError as error:
            raise DataError(f"{form.path.name}, row {number}: {error}") from error
        yield unit, number, row


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: changed while it was read; run the command again")


def _unit(row: Row, column: str | None) -> str:
    """Returns the identity of a row's unit: its person, its `UNIT`, or all of its values.

    Raises:
        DataError: A value has no spelling of its own.
    """
    name = _spelled(row.get(column)) if column is not None else None
    if name:
        return f"person {name}"
    if made := _spelled(row.get(UNIT)):  # a copy is on the side of its source
        return f"unit {made}"
    whole = json_text(row).encode("utf-8", "surrogatepass")
    return f"record {hashlib.sha256(whole).hexdigest()}"


def _cell(row: Row, plan: SplitPlan, form: Detected, number: int) -> str:
    column = plan.column or plan.by
    value = row.get(column)
    if plan.by == "time" and isinstance(value, Moment):
        return value.written
    found = _spelled(value)
    if not found:
        held = ", ".join(shown(name) for name in list(row)[:12])
        raise DataError(
            f"{form.path.name}, row {number}: no text or integer in {shown(column)!r}, which "
            f"--by {plan.by} needs (found: {held}); name the column with --column, or correct "
            "the row"
        )
    return found


def _spelled(value: Value) -> str | None:
    """Returns a text or number as it is written; None for any other value."""
    if isinstance(value, Number):
        return value.written
    return value.strip() if isinstance(value, str) else None


def _own_ending(form: Detected) -> str:
    own = {"csv": ".csv", "parquet": ".parquet"}.get(form.form.kind, ".jsonl")
    assert own in ENDINGS
    return own
