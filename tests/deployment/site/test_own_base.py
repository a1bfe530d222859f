"""A site's base is a folder, a GGUF file or a hub id that its own `site.toml` names."""

from pathlib import Path

import pytest

from cloister.client.site_file import EXAMPLE, SiteFile, read_site
from cloister.deployment.site.network_access import needs_hub
from cloister.deployment.site.opened_site import own_base
from cloister.errors import ModelFileError
from cloister.recipe import Recipe
from tests.support.gguf_files import write_llama


def site(folder: Path, model: str) -> SiteFile:
    text = EXAMPLE.replace("[site]\n", f'[site]\nmodel = "{model}"\n', 1)
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return read_site(folder / "site.toml")


def test_a_folder_and_a_file_lie_beside_the_site_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "base").mkdir()
    write_llama(tmp_path / "base.gguf")
    folder, file = site(tmp_path, "base"), site(tmp_path, "base.gguf")
    assert own_base(folder, Recipe()) == tmp_path / "base"
    assert own_base(file, Recipe()).parent == tmp_path / "cache" / "cloister" / "bases"
    assert not needs_hub(folder)
    assert not needs_hub(file)


def test_a_hub_id_is_looked_for_as_one(tmp_path: Path) -> None:
    file = site(tmp_path, "nobody/nothing")
    assert needs_hub(file)
    with pytest.raises(ModelFileError, match="nobody/nothing could not be downloaded from the hub"):
        own_base(file, Recipe())
