"""`cloister simulate --out URL`: a run works in a folder here and is copied to the URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cloister.errors import CloisterError, UsageError

if TYPE_CHECKING:  # they load what a refused option does not need
    from cloister.cli.display import Display
    from cloister.recipe import Recipe
    from cloister.server.report import RoundReport
    from cloister.server.run_directory import RunDirectory
    from cloister.simulation.copies.place import RunPlace
    from cloister.simulation.copies.writing import RunCopy


def place_of(out: str | None, work: Path | None, others: bool) -> RunPlace | None:
    """Returns the place of a URL that was given as --out; None: a folder was given, or nothing.

    Args:
        out: As it was given.
        work: The folder in which the run is to work.
        others: Whether options were given that make a folder of several runs.

    Raises:
        UsageError: The options contradict one another, or fsspec cannot open the URL.
    """
    from cloister.names import is_url

    if out is None or not is_url(out):
        if work is not None:
            raise UsageError(
                "--work: given without a URL as --out; it is the folder of a run that is copied to "
                "a URL: leave it out, or give the folder as --out"
            )
        return None
    from cloister.simulation.copies.place import RunPlace

    place = RunPlace.of(out, work)
    if others:
        raise UsageError(
            f"--out {place.url.shown}: a URL given with --sweep, --seeds or --folds; one run is "
            "copied to a URL: give a folder of this machine, or run each study by itself"
        )
    return place


@dataclass
class RunAtUrl:
    """A run of this machine that is copied to a URL while it goes on.

    Attributes:
        place: The URL with the run's folder.
        run: The folder.
        copy: Copies it.
    """

    place: RunPlace
    run: RunDirectory
    copy: RunCopy

    @classmethod
    def create(cls, place: RunPlace, study: Recipe) -> RunAtUrl:
        """Makes the folder of a new run, and claims the URL for it."""
        return cls(place, *place.create(study))

    @classmethod
    def reopen(cls, place: RunPlace) -> RunAtUrl:
        """Opens the folder of an unfinished run."""
        return cls(place, *place.reopen(lambda text: typer.echo(f"warning: {text}", err=True)))

    def begin(self, display: Display) -> None:
        """Says where the run works, and where messages about the copy go."""
        self.copy.note, self.copy.warn = display.note, display.warn
        display.note(
            f"works in {self.run.path}; after each round what changed is copied to "
            f"{self.place.url.shown}. Keys of sites, records and what no site sends stay here"
        )

    def on_round(self, told: Callable[[RoundReport], None]) -> Callable[[RoundReport], None]:
        """Returns a callback that also copies each closed round."""

        def both(report: RoundReport) -> None:
            told(report)
            self.copy.after_round(report.round)

        return both

    def finish(self, display: Display) -> CloisterError | None:
        """Signs the sites' certificates, because their keys stay here, and copies the rest.

        Returns:
            Why the copy is not complete; None: it is.
        """
        from cloister.simulation.certificates import certify_run

        failed: CloisterError | None = None
        try:
            certify_run(self.run)
        except CloisterError as error:
            failed = error
        try:
            self.copy.at_end()
        except CloisterError as error:
            return error
        except KeyboardInterrupt:
            return CloisterError(
                f"interrupted while the finished run was copied to {self.place.url.shown}; it is "
                f"in {self.run.path}. To copy the rest: cloister simulate --resume --out "
                f"{self.place.url.shown} --work {self.run.path}"
            )
        if failed is None:
            display.note(f"copied to {self.place.url.shown}, with the sites' certificates")
        return failed

    def facts(self, failed: CloisterError | None) -> dict[str, Any]:
        """Returns what --json adds."""
        return {"url": self.place.url.shown, "is_copied": failed is None}


def again(place: RunPlace | None, folder: Path, work: Path | None) -> str:
    """Returns the options by which a run is resumed."""
    if place is None:
        return f"--out {folder}"
    return f"--out {place.url.shown}{'' if work is None else f' --work {work}'}"
