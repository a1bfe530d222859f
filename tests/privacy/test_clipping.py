"""The clip is the same for a row wherever it is, and exceeds its bound for no vector."""

import pytest
import torch
from torch import Tensor

from cloister.privacy.clipping import GRID_BITS, clip_and_sum, contributions


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_s_clip_is_the_same_wherever_it_is(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = torch.Generator().manual_seed(0)
        rows = [
            torch.randn(70, *shape, generator=generator) * 10
            for shape in ((5, 384), (77,), (3, 129, 7), (40000,))
        ]
        together = contributions(rows, 1.0)
        for start, stop in ((0, 1), (3, 5), (69, 70), (8, 40), (1, 70)):
            part = contributions([g[start:stop].clone() for g in rows], 1.0)
            for one, two in zip(part, together, strict=True):
                assert torch.equal(one, two[start:stop])
    finally:
        torch.set_num_threads(before)


def adversarial_rows() -> dict[str, list[Tensor]]:
    """Gradients whose float32 norm is as far off as we can make it."""
    generator = torch.Generator().manual_seed(0)
    n = 2**16 + 1
    third = torch.full((1, n), 1 / 3)
    return {
        "equal values that are no float": [third],
        "one large, many small": [torch.cat([torch.ones(1, 1), third[:, 1:] * 2**-12], dim=1)],
        "falling by powers": [torch.logspace(0, -20, n, base=2.0)[None]],
        "just above halves": [torch.full((1, n), 1 + 2**-12)],
        "tiny": [torch.full((1, n), 2.0**-70) * torch.rand(1, n, generator=generator)],
        "huge": [torch.full((1, n), 1e14)],
        "many tensors": [torch.randn(1, 7, 11, generator=generator) for _ in range(300)],
        "random": [torch.randn(1, n, generator=generator) * 10**3],
    }


@pytest.mark.parametrize("name", adversarial_rows())
@pytest.mark.parametrize("bound", [1e-3, 1.0, 8.0])
def test_no_vector_is_clipped_to_more_than_the_bound(name: str, bound: float) -> None:
    row = adversarial_rows()[name]
    total = clip_and_sum(row, bound)
    squares = sum(int(v) ** 2 for t in total.tensors for v in t.flatten().tolist())
    norm = squares**0.5 * total.grid
    exact = sum(float(g.double().square().sum()) for g in row) ** 0.5
    assert norm <= bound
    if exact > bound:
        assert norm >= bound * (1 - 2e-5)  # the margin, √d of the grid, and rounding
    assert GRID_BITS == 30
