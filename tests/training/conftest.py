"""Bases of real width, shared by the tests of isolation."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cloister.training.proof import prove
from cloister.training.shapes import BatchShapes
from cloister.training.workspace import Workspace
from tests.support.isolation import CONFIG, PLAN, wide_base, wide_workspace


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def base(family: str) -> Path:
        if family not in made:
            made[family] = wide_base(tmp_path_factory.mktemp(family), family)
        return made[family]

    return base


@pytest.fixture(scope="module")
def real(bases: Callable[[str], Path]) -> tuple[Workspace, BatchShapes]:
    """A workspace with its proven shapes; its adapters hold values of one to three."""
    workspace = wide_workspace(bases("bert"), "sequence-classification")
    shapes = prove(workspace, PLAN, CONFIG).shapes
    with torch.no_grad():
        for parameter in workspace.network.parameters():
            if parameter.requires_grad:
                parameter.mul_(5)
    return workspace, shapes
