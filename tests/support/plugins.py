"""Plug-in packages for tests, laid out as if pip had installed them."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


class Site:
    """A folder of installed packages that Python finds, for as long as a test lasts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        folder.mkdir(exist_ok=True)
        monkeypatch.syspath_prepend(str(folder))

    def module(self, name: str, source: str) -> None:
        """A module that is part of no package."""
        (self.folder / f"{name}.py").write_text(source)
        self._patch.delitem(sys.modules, name, raising=False)
        self._patch.syspath_prepend(str(self.folder))  # forgets what was looked up before

    def package(
        self,
        name: str,
        source: str,
        version: str = "1.0",
        entries: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """A distribution `NAME-dist` of one module, with its entry points by group."""
        self.module(name, source)
        for old in self.folder.glob(f"{name}_dist-*.dist-info"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        info = self.folder / f"{name}_dist-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        (info / "RECORD").write_text(f"{name}.py,,\n")
        lines = []
        for group, names in (entries or {}).items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        self._patch.syspath_prepend(str(self.folder))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Yields a folder of packages into which a test installs its plug-ins."""
    return Site(tmp_path / "packages", monkeypatch)
