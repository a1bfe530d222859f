"""Records, tasks and tokenizers that do not fit a base are refused with a remedy."""

import pytest

from cloister.errors import CloisterError, ModelFileError, UsageError
from cloister.tasks.fit import Limits, check_fit, misfit
from cloister.tasks.task import Example

LIMITS = Limits(positions=4, vocabulary=10)
NONE = Limits(positions=None, vocabulary=None)


@pytest.mark.parametrize(
    ("ids", "limits", "why"),
    [
        ((0, 9, 9, 0), LIMITS, None),
        ((0,), LIMITS, None),
        ((), LIMITS, "empty"),
        ((), NONE, "empty"),
        ((1, 2, 3, 4, 5), LIMITS, "length"),
        ((1, 10), LIMITS, "token"),
        ((-1, 3), LIMITS, "token"),
        ((-1, 3), NONE, "token"),
        ((2**40,), LIMITS, "token"),
        ((1, 10, 1, 1, 1), LIMITS, "length"),
        (tuple(range(5000)), NONE, None),
        (tuple(range(9)), Limits(positions=None, vocabulary=9), None),
        (tuple(range(10)), Limits(positions=None, vocabulary=9), "token"),
        ((10**6,), Limits(positions=1, vocabulary=None), None),
    ],
)
def test_a_record_that_a_base_cannot_take_is_told(
    ids: tuple[int, ...], limits: Limits, why: str | None
) -> None:
    assert misfit(Example(ids, 0), limits) == why


@pytest.mark.parametrize(
    ("limits", "max_length", "ids", "pad_id", "error", "words"),
    [
        (
            LIMITS,
            5,
            {"a": 9},
            0,
            UsageError,
            r"task\.max_length: 5 given; the base has 4 positions: "
            r"set task\.max_length to 4 or less",
        ),
        (
            LIMITS,
            4,
            {"a": 3, "<extra>": 10},
            0,
            ModelFileError,
            r"the tokenizer of tiny has ids up to 10 \('<extra>'\); its embedding has 10 rows",
        ),
        # Fewer tokens than rows, with a hole: their number says nothing.
        (LIMITS, 4, {"a": 300}, 0, ModelFileError, r"ids up to 300 \('a'\)"),
        (LIMITS, 4, {"a": 9}, 10, ModelFileError, r"tiny pads with id 10; its embedding has 10"),
        (LIMITS, 4, {"a": 9}, -1, ModelFileError, r"tiny pads with id -1"),
        (Limits(None, 10), 10**6, {"a": 10}, 0, ModelFileError, "get the tokenizer that belongs"),
    ],
)
def test_what_goes_beyond_its_base_is_refused(
    limits: Limits,
    max_length: int,
    ids: dict[str, int],
    pad_id: int,
    error: type[CloisterError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        check_fit(limits, "tiny", max_length, ids, pad_id)


@pytest.mark.parametrize("limits", [LIMITS, NONE, Limits(None, 10), Limits(4, None)])
def test_what_fits_passes(limits: Limits) -> None:
    check_fit(limits, "tiny", 4, {"a": 9}, 9)
    check_fit(limits, "tiny", 4, {}, 0)
