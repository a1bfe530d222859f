"""The head that compares queries with passages: a record's numbers are its own, to the bit."""

import pytest
import torch
import torch.nn.functional as F

from cloister.models.network import HEAD_ROWS
from cloister.models.passage_head import PassageHead

HIDDEN = 96


def made(kind: str, passages: int) -> PassageHead:
    head = PassageHead(kind, HIDDEN, passages, 4, 0)
    generator = torch.Generator().manual_seed(1)
    head.passages.copy_(F.normalize(torch.randn(passages, HIDDEN, generator=generator), dim=1))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return head


@pytest.mark.parametrize("passages", [2, 3, 5, 77])
@pytest.mark.parametrize("kind", ["linear", "lora", "frozen"])
def test_companions_and_places_change_no_bit(kind: str, passages: int) -> None:
    """With two or three columns MKL sums a row otherwise by its place: zeros fill them up."""
    head, own = made(kind, passages), torch.randn(1, HIDDEN, generator=torch.manual_seed(2))
    found = set()
    for rows in (HEAD_ROWS, 2 * HEAD_ROWS, 4 * HEAD_ROWS):
        for place in (0, 3, rows - 1):
            features = torch.randn(rows, HIDDEN)
            features[place] = own
            features.requires_grad_()
            scores = head(features)
            assert scores.shape == (rows, passages)
            target = torch.zeros(rows, dtype=torch.long)
            F.cross_entropy(scores / 0.05, target, reduction="sum").backward()
            assert features.grad is not None
            found.add((*scores[place].tolist(), *features.grad[place].tolist()))
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["linear", "lora", "frozen"])
def test_the_maps_matrix_is_what_the_head_computes(kind: str) -> None:
    head, features = made(kind, 5), torch.randn(3, HIDDEN)
    plain = F.normalize(features @ head.matrix().T, dim=1) @ head.passages.T
    # float32: 96 products of numbers near 1, summed in another order.
    torch.testing.assert_close(head(features), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "lora", "frozen"])
def test_a_new_map_changes_nothing_and_no_direction_is_no_number_lost(kind: str) -> None:
    head = PassageHead(kind, HIDDEN, 2, 4, 0)
    assert torch.equal(head.matrix(), torch.eye(HIDDEN))
    zero = torch.zeros(1, HIDDEN, requires_grad=True)
    head(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()  # type: ignore[arg-type]
