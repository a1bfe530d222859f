"""`cloister.Result`: the results of a simulation, as tables, and its folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.api.epsilon_value import Epsilon
from cloister.errors import UsageError
from cloister.files import bad_file, write_whole
from cloister.privacy.estimated_scores import delivered, evaluated_rounds
from cloister.server.run_directory import RECORDS, RunDirectory

if TYPE_CHECKING:
    import pandas as pd

    from cloister.simulation.result import RunResult as Finished


class Result:
    """The result of a finished simulation.

    Without `out` in `simulate` the folder is a private temporary one, which is removed with the
    result; `save` keeps a copy.

    Attributes:
        finished: The run's outcome, as the command line has it.
        warnings: Settings that are allowed but probably a mistake, one line each.
    """

    def __init__(self, finished: Finished, warnings: tuple[str, ...] = ()) -> None:
        self.finished = finished
        self.warnings = warnings

    @property
    def folder(self) -> Path:
        """Returns the run's folder: recipe, figures, adapter with its card, ledgers."""
        return self.finished.run_dir

    @property
    def test(self) -> Mapping[str, float]:
        """Returns the scores on the public test set, by name."""
        return self.finished.test

    @property
    def metric(self) -> str:
        """Returns the name of the task's primary metric, a key of `test`."""
        return self.finished.metric

    @property
    def epsilon(self) -> Epsilon:
        """Returns the largest ε that a site's ledger promises, with unit, δ and accountant."""
        return Epsilon.of(
            max((site.promise for site in self.finished.sites), key=lambda one: one.epsilon)
        )

    @property
    def rounds(self) -> pd.DataFrame:
        """Returns a table with a row for each closed round, by its number.

        Row 0 has only the scores of the untrained adapter.

        Columns: scores, such as `test_accuracy`; the largest ε that the sites' ledgers promised
            then
        (`sites` has its unit and δ); bytes sent by and to all sites; seconds; and the numbers of
        sites that were missing, retired (their budget is spent) and refused.
        """
        import pandas as pd

        rows = [_round(row) for row in RunDirectory(self.folder).scored()]
        return pd.DataFrame(rows).set_index("round")

    @property
    def sites(self) -> pd.DataFrame:
        """Returns a table with a row for each site: its promised ε with unit and δ, and its plan.

        `epsilon_spent` is the ε of the steps that were taken: an indication, not a promise.
        """
        import pandas as pd

        rows = [
            {
                "site": site.name,
                "epsilon": site.promise.epsilon,
                "delta": site.promise.delta,
                "unit": site.promise.unit.value,
                "neighbouring": site.promise.neighbouring.value,
                "accountant": site.promise.accountant.value,
                "against": site.promise.against,
                "basis": site.promise.basis.value,
                "epsilon_spent": site.spent.epsilon,
                "steps": site.steps,
                "evaluations": site.evaluations,
                "sample_rate": site.sample_rate,
                "noise_multiplier": site.noise_multiplier,
                "public_records": site.public_records,
            }
            for site in self.finished.sites
        ]
        return pd.DataFrame(rows).set_index("site")

    @property
    def evaluations(self) -> pd.DataFrame:
        """Returns a table of the private evaluations: a row for each round and score.

        Columns: the estimate, and the ends of its 95 % intervals for the held-out units and for
        their population. An estimate that the noise hides, and an interval that is not stated, is
        NaN. Empty if the study has no private evaluation.
        """
        import pandas as pd

        columns = ["value", "held_out_low", "held_out_high", "population_low", "population_high"]
        rows = {
            (one.round, name): [
                math.nan if found.value is None else found.value,
                *found.held_out,
                *(found.population or (math.nan, math.nan)),
            ]
            for one in evaluated_rounds(self.finished.private_evaluations)
            for name, found in one.scores.items()
        }
        index = pd.MultiIndex.from_tuples(list(rows), names=["round", "score"])
        return pd.DataFrame(list(rows.values()), index=index, columns=columns)

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values, as `cloister simulate --json` prints them; ∞ is null."""
        return self.finished.to_json()

    def save(self, folder: str | PathLike[str]) -> Path:
        """Copies the run's folder, so that it can be loaded, compared and checked later.

        Records that were in memory are left out, because a run's folder may be passed on. Keep them
        with `Study.save`.

        Args:
            folder: A new folder.

        Returns:
            The folder's absolute path.

        Raises:
            UsageError: The folder exists already.
            BadFileError: It cannot be written.
        """
        place = Path(folder).absolute()
        try:
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise UsageError(f"{place} exists already; choose a new folder")
            if place.resolve().is_relative_to(self.folder.resolve()):
                raise UsageError(f"{place} is inside of the run's folder; choose one outside of it")
            shutil.copytree(self.folder, place, ignore=self._records, dirs_exist_ok=True)
            moved = self.to_json() | {"run_dir": str(place)}
            write_whole(
                RunDirectory(place).result_file, (json.dumps(moved, indent=1) + "\n").encode()
            )
        except (OSError, ValueError) as error:
            raise bad_file(error, "written") from error
        return place

    def _records(self, folder: str, names: list[str]) -> set[str]:
        return {RECORDS} & set(names) if Path(folder) == self.folder else set()

    def __str__(self) -> str:
        lines = [
            f"{self._score()} after {self.finished.rounds} rounds",
            str(self.epsilon),
            *(f"warning: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        rounds = self.finished.rounds
        return f"Result({rounds} rounds, {self._score()}, {self.epsilon}, {self.folder})"

    def _score(self) -> str:
        score = self.test.get(self.metric)
        if score is not None:
            return f"test {self.metric} {score:.4f}"
        estimate = delivered(self.finished.private_evaluations, self.finished.selected)
        return "no public test set" if estimate is None else f"private evaluation {estimate}"


def _round(row: Mapping[str, Any]) -> dict[str, object]:
    scores = {
        f"{name}_{metric}": value
        for name in ("test", "validation", "old_test")
        for metric, value in row.get(name, {}).items()
    }
    promised = [math.inf if value is None else value for value in row.get("epsilon", {}).values()]
    return {
        "round": row["round"],
        **scores,
        "epsilon_promised": max(promised, default=math.nan),
        "bytes_up": row.get("bytes_up", 0),
        "bytes_down": row.get("bytes_down", 0),
        "seconds": row.get("seconds", math.nan),
        **{name: len(row.get(name, ())) for name in ("missing", "retired", "refused")},
    }
