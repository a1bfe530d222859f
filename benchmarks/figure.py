"""A measured ratio and its bound."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    bound: float
    sense: Literal["at most", "at least"]

    def __str__(self) -> str:
        holds = self.value <= self.bound if self.sense == "at most" else self.value >= self.bound
        verdict = "holds" if holds else "MISSED"
        return f"{self.name:<64} {self.value:6.2f}  {self.sense} {self.bound:g}: {verdict}"
