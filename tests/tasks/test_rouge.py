"""ROUGE-L against values worked by hand: F = 2·LCS / (words of reply + words of reference)."""

import pytest

from cloister.tasks.rouge import rouge_l


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        # Lin 2004's example, section 3.1: police … the gunman, 3 of 4; the gunman, 2 of 4.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        # A subsequence, not a substring: a c d of a b c d.
        ("a c d", "a b c d", 2 * 3 / (3 + 4)),
        ("fever", "cough", 0.0),
        ("", "cough", 0.0),
        # Case and punctuation do not count.
        ("Yes, it IS.", "yes it is", 1.0),
        # 头痛发热 and 发热头晕: 4 characters each; the longest common one is 发热, 2 of them.
        ("头痛发热", "发热头晕", 2 / 4),
        # Each character is a word, Latin runs beside them too: 每 天 2 次 of 每 天 3 次.
        ("每天2次", "每天3次。", 3 / 4),
        # Letters with accents stay whole; rouge-score's own tokenizer would cut them.
        ("größe", "gr e", 0.0),
        ("κρύωμα 37", "κρύωμα 38", 1 / 2),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(
    reply: str, reference: str, expected: float
) -> None:
    assert rouge_l([reply], [reference]) == pytest.approx(expected)


def test_rouge_l_is_averaged_over_pairs() -> None:
    assert rouge_l(["a b", "x"], ["a b", "y"]) == pytest.approx(0.5)


def test_no_pair_scores_nothing() -> None:
    assert rouge_l([], []) == 0.0


def test_replies_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        rouge_l(["a", "b"], ["a"])
