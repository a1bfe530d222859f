"""Reads rows of an Arrow table, as Parquet files and hub data sets hold them, without loss.

Integers of any width and decimals become their digits, categories the values that they stand for,
and class ids the names that the data set's own features give them. A value with several
possible spellings (bytes, a time of day) becomes `Unusable`, which is an error only in a column
that is read. So does a float, except as a score, which is a number and not a name, and a date or
timestamp, except as a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cloister.data.values import Moment, Number, Real, Row, Unusable, Value, shown
from cloister.errors import DataError

# The depth of a conversation's column: a list of objects of texts. Deeper values are not read.
_DEEPEST = 3
# Ticks of a second, by a timestamp's unit.
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1)


def class_names(features: object, source: str) -> dict[str, tuple[str, ...]]:
    """Returns the names of class ids by column, from the features that `datasets` writes as JSON.

    Args:
        features: `Features.to_dict()`, or the same value from a Parquet file's metadata; any other
            value gives no names.
        source: The file or data set, for messages.

    Raises:
        DataError: Two classes of a column have one name, so that they would become one.
    """
    found: dict[str, tuple[str, ...]] = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        inner = feature.get("feature") if isinstance(feature, Mapping) else None
        if isinstance(feature, list) and len(feature) == 1:
            inner = feature[0]
        for described in (feature, inner):
            if isinstance(described, Mapping) and described.get("_type") == "ClassLabel":
                names = described.get("names")
                if isinstance(names, list) and all(isinstance(name, str) for name in names):
                    repeated = [name for name, count in Counter(names).items() if count > 1]
                    if repeated:
                        raise DataError(
                            f"{source}: duplicate class name {shown(repeated[0])!r} in the column "
                            f"{shown(str(column))!r}; rename one class in the data set's features"
                        )
                    found[column] = tuple(names)
    return found


def rows_of(batch: Any, names: Mapping[str, tuple[str, ...]]) -> Iterator[Row]:
    """Yields the rows of a batch.

    Args:
        batch: A `pyarrow.RecordBatch` whose columns have different names.
        names: Names of class ids, by column.

    Raises:
        pyarrow.ArrowException: The batch is damaged.
    """
    columns = batch.schema.names
    values = [
        _values(array, names.get(column), _DEEPEST)
        for column, array in zip(columns, batch.columns, strict=True)
    ]
    for cells in zip(*values, strict=True):
        yield dict(zip(columns, cells, strict=True))


def _values(array: Any, names: tuple[str, ...] | None, depth: int) -> list[Value]:
    """Returns the values of an array, one per row."""
    kind, types = array.type, pa.types
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _texts(array)
    if types.is_boolean(kind) or types.is_null(kind):
        values: list[Value] = array.to_pylist()
        return values
    if types.is_integer(kind):
        numbers = array.to_pylist()
        return [_name(n, names) if names is not None else _integer(n) for n in numbers]
    if types.is_decimal(kind):
        return [None if d is None else Number(format(d, "f")) for d in array.to_pylist()]
    if types.is_floating(kind):
        reals = array.to_pylist()
        return [None if n is None else Real(str(kind), float(n)) for n in reals]
    if types.is_date(kind):
        days = array.cast(pa.date32()).cast(pa.int32()).to_pylist()
        return [None if n is None else _date(n, str(kind)) for n in days]
    if types.is_timestamp(kind):
        ticks = array.cast(pa.int64()).to_pylist()
        return [None if n is None else _timestamp(n, kind) for n in ticks]
    nested = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if depth and nested:
        return _lists(array, names, depth)
    if depth and types.is_struct(kind) and len({field.name for field in kind}) == len(kind):
        return _objects(array, depth)
    return [Unusable(str(kind)) if held else None for held in array.is_valid().to_pylist()]


def _texts(array: Any) -> list[Value]:
    try:
        values: list[Value] = array.to_pylist()
    except UnicodeDecodeError:  # read one by one, so that only the bad row is unusable
        return [_text(scalar) for scalar in array]
    return values


def _text(scalar: Any) -> Value:
    try:
        text: str | None = scalar.as_py()
    except UnicodeDecodeError:
        return Unusable("bytes that are not UTF-8")
    return text


def _integer(number: int | None) -> Value:
    return None if number is None else Number(str(number))


def _date(days: int, kind: str) -> Value:
    """Returns a number of days since 1970 as a date; a year beyond 9999 has no ISO spelling."""
    try:
        return Moment(kind, (_EPOCH + timedelta(days=days)).date().isoformat())
    except OverflowError:
        return Unusable(kind)


def _timestamp(ticks: int, kind: Any) -> Value:
    """Returns a timestamp in ISO 8601, with no more decimals than it needs: so its unit does not
    matter. One with a zone is stored in UTC, and written so."""
    seconds, rest = divmod(ticks, _TICKS[kind.unit])
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return Unusable(str(kind))
    digits = len(str(_TICKS[kind.unit])) - 1
    decimals = f".{rest:0{digits}d}".rstrip("0") if rest else ""
    return Moment(str(kind), text + decimals + ("" if kind.tz is None else "+00:00"))


def _name(number: int | None, names: tuple[str, ...]) -> Value:
    """Returns a class id's name; None for a missing id, which the hub writes as -1."""
    if number is None or number == -1:
        return None
    if 0 <= number < len(names):
        return names[number]
    return Unusable(f"the class id {number}, which has no name")


def _lists(array: Any, names: tuple[str, ...] | None, depth: int) -> list[Value]:
    inner = iter(_values(array.flatten(), names, depth - 1))
    lengths = pc.list_value_length(array).to_pylist()
    return [None if n is None else [next(inner) for _ in range(n)] for n in lengths]


def _objects(array: Any, depth: int) -> list[Value]:
    fields = [field.name for field in array.type]
    cells = [_values(child, None, depth - 1) for child in array.flatten()]
    held = array.is_valid().to_pylist()
    return [
        dict(zip(fields, (column[i] for column in cells), strict=True)) if held[i] else None
        for i in range(len(array))
    ]
