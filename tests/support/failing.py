"""A network that fails on chosen records."""

from collections.abc import Callable

from torch import Tensor, nn


class Failing(nn.Module):
    """An embedding that asks before each pass whether it fails.

    Args:
        inner: The network's own embedding.
        ask: Gets the first row's tokens; what it raises, the pass raises.
    """

    def __init__(self, inner: nn.Module, ask: Callable[[list[int]], None]) -> None:
        super().__init__()
        self.inner, self.ask = inner, ask

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.inner.weight  # type: ignore[assignment]
        return weight

    def forward(self, ids: Tensor) -> Tensor:
        self.ask(ids[0].tolist())
        found: Tensor = self.inner(ids)
        return found
