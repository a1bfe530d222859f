"""Card scripts work for bases of a wrapper's text network and of an unpacked GGUF file."""

from pathlib import Path

import pytest

from cloister.data.records import TextRecord
from cloister.export.snippets import loading_of, loading_script
from cloister.models.config import ModelConfig
from cloister.models.unpacked import unpacked
from cloister.tasks.config import TaskConfig
from tests.export.test_scripts import TEXTS, opened, own_logits, run_scripts, same, write_script
from tests.models.test_kinds import wrapper
from tests.support.gguf_files import write_llama
from tests.support.plain_scripts import Run


def test_of_a_wrapper_the_script_reads_the_text_network(tmp_path: Path, plain: Run) -> None:
    folder = tmp_path / "gemma3"
    wrapper(folder / "base", "gemma3")
    model = ModelConfig(base=str(folder / "base"))
    workspace = opened(folder / "base", model, TaskConfig(max_length=9), ("a", "b", "c"))
    write_script(folder, model, workspace, TEXTS)
    expected = own_logits(workspace, [TextRecord(text, "a") for text in TEXTS])
    same(folder, run_scripts(plain, [folder])[str(folder)]["logits"], expected)


@pytest.mark.filterwarnings("ignore")  # a script run by hand says what it says
def test_the_script_of_an_unpacked_base_unpacks_it_and_checks_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    write_llama(file)
    model = ModelConfig(base=str(file))
    workspace = opened(file, model, TaskConfig(max_length=9), ("a", "b", "c"))
    write_script(tmp_path, model, workspace, TEXTS)
    expected = own_logits(workspace, [TextRecord(text, "a") for text in TEXTS])
    script = loading_script(loading_of(model, workspace))
    assert f'check_base(Path(base), "{unpacked(file).name}")' in script
    space: dict[str, object] = {}
    monkeypatch.chdir(tmp_path)
    exec(compile((tmp_path / "script.py").read_text(), "script", "exec"), space)
    logits = space["logits"]
    same(tmp_path, logits.tolist(), expected)  # type: ignore[attr-defined]
