"""What sites share of adapters whose B they keep is told from a whole adapter."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cloister.errors import UsageError
from cloister.export.own_parts import check_whole
from cloister.models.config import LoraConfig


@pytest.mark.parametrize("name", ["lora_B.weight", "lora_embedding_B"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_whole_if_any_b_is_not_zero(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    kept, tensors = LoraConfig(train="b-kept"), {"x.lora_A.weight": torch.ones(2, 2)}
    file = tmp_path / "adapter_model.safetensors"
    save_file({**tensors, f"x.{name}": torch.zeros(2, 2, dtype=dtype)}, file)
    with pytest.raises(UsageError, match="of a site that trained"):
        check_whole(tmp_path, kept)
    check_whole(tmp_path, LoraConfig(train="b"))  # nothing is kept: a start is a model
    save_file({**tensors, f"x.{name}": torch.tensor([[0, 1e-30]], dtype=dtype)}, file)
    check_whole(tmp_path, kept)
