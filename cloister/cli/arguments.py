"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SiteToml = Annotated[Path, typer.Argument(metavar="SITE.TOML", help="The site's file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
