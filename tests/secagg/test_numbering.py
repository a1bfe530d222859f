"""Every sum of a study has a number of its own, in the order in which sites send."""

from itertools import pairwise

from cloister.secagg.numbering import sum_number


def test_a_round_s_update_comes_before_its_evaluation_and_both_before_the_next_round() -> None:
    found = [
        sum_number(number, evaluates=evaluates, has_evaluations=True)
        for number in range(1, 9)
        for evaluates in (False, True)
    ]
    assert found[0] >= 1
    assert all(earlier < later for earlier, later in pairwise(found))


def test_without_evaluations_the_number_is_the_round() -> None:
    assert sum_number(7, evaluates=False, has_evaluations=False) == 7
