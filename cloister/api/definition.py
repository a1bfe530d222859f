"""`cloister.Study`: a whole study as one value, in Python or as a recipe in TOML."""

from __future__ import annotations

import dataclasses
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.api.memory_tables import is_table, places, records_in, write_tables
from cloister.api.sections import (
    Section,
    given,
    headed,
    source_of,
    stated,
    strategy_table,
    table_of,
    task_table,
)
from cloister.api.study_records import records_of
from cloister.data.records import Record
from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, write_whole
from cloister.recipe import Recipe, parse_recipe, read_recipe, read_tables

if TYPE_CHECKING:
    from cloister.api.study_plan import StudyPlan
    from cloister.simulation.layer_choice import LayerTable
    from cloister.strategies.strategy import Strategy

# Arguments for names of columns, and for the separator of labels, as in `[data]`.
COLUMNS = (
    "text",
    "text_b",
    "label",
    "tokens",
    "tags",
    "messages",
    "site",
    "person",
    "labels",
    "label_separator",
    "score",
    "items",
)


@dataclass(frozen=True, init=False, repr=False)
class Study:
    """A study: a recipe and, for data in memory, their records.

    Two studies are equal if their recipes, with every default, and their records in memory are
    equal.

    >>> import cloister as cl
    >>> study = cl.Study(data="train.csv", test="test.csv", privacy=cl.Privacy(epsilon=3))
    >>> study.recipe.privacy.epsilon, study.recipe.federation.num_rounds
    (3.0, 30)
    >>> cl.Study.from_toml(study.to_toml()) == study
    True
    >>> cl.Study(rounds=0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    cloister.errors.RecipeError: federation.num_rounds: 0 given; a whole number from 1 ...

    Args:
        model: The base (a hub id or a folder), or the whole section `[model]`.
        task: The task's kind, your own class (docs/extending.md), or the whole section
            `[task]`.
        data: Training data: a file, hub id or `synthetic:hospitals` whose rows name their sites;
            `cloister.partition(…)` of one of these or of a table in memory; or a dict with a table
            for each site's name. A table is a pandas.DataFrame, pyarrow.Table, datasets.Dataset or
            list of dicts. Absent: the data of the quickstart.
        test: The public test set: a table, file or hub id.
        validation: A public validation set: a table, file or hub id.
        privacy: The promise to every site: `cloister.Privacy(…)`.
        strategy: A strategy's name, your own object or class (docs/extending.md), or the whole
            section `[strategy]`. The recipe names the class by its import path and has an object's
            dataclass fields; a class of a script or notebook runs in this process only.
        rounds: Rounds of the study: `federation.num_rounds`.
        name: The study's name; absent: `study`, or the quickstart's name without `data`.
        seed: Root of all randomness that may be reproducible.
        public_records: The declared number of records of a site, or one for each site in order of
            their names. It is never counted from the data, because the sample rate depends on it.
        held_out_share: Share of each site's units that is not trained on, as private evaluations
            (`Privacy(evaluation_rounds=…)`) need it.
        text: Column of a text.
        text_b: Column of a pair's second text.
        label: Column of a text's label.
        tokens: Column of a sentence's words.
        tags: Column of the words' tags.
        messages: Column of a conversation.
        labels: Column of a text's labels, a list of them.
        label_separator: Separates several labels in one cell of text; absent: a list is needed.
        score: Column of a text's score.
        items: Column of a person's items, oldest first.
        site: Column that names the site, if rows name theirs.
        person: Column that names the person.
        lora: The section `[lora]`.
        training: The section `[training]`.
        federation: The section `[federation]`.
        machine: The section `[machine]`.
        tracking: The section `[tracking]`.

    Attributes:
        recipe: Every field with its value. For rows in memory it does not name a real file.
        tables: Records in memory by split: `train`, `test`, `validation`.

    Raises:
        RecipeError: Fields are invalid or contradict each other; all problems at once.
        DataError: A row in memory lacks what the task needs.
        UsageError: Data are of a type without rows.
    """

    recipe: Recipe
    tables: Mapping[str, tuple[Record, ...]]

    def __init__(
        self,
        *,
        model: str | PathLike[str] | Section | None = None,
        task: str | Section | type | None = None,
        data: object = None,
        test: object = None,
        validation: object = None,
        privacy: Section | None = None,
        strategy: str | Section | Strategy | type[Strategy] | None = None,
        rounds: int | None = None,
        name: str | None = None,
        seed: int | None = None,
        public_records: int | Sequence[int] | None = None,
        held_out_share: float | None = None,
        text: str | None = None,
        text_b: str | None = None,
        label: str | None = None,
        tokens: str | None = None,
        tags: str | None = None,
        messages: str | None = None,
        labels: str | None = None,
        label_separator: str | None = None,
        score: str | None = None,
        items: str | None = None,
        site: str | None = None,
        person: str | None = None,
        lora: Section | None = None,
        training: Section | None = None,
        federation: Section | None = None,
        machine: Section | None = None,
        tracking: Section | None = None,
    ) -> None:
        columns = (
            *(text, text_b, label, tokens, tags, messages, site, person),
            *(labels, label_separator, score, items),
        )
        source, dealing = source_of(data)
        if rounds is not None and "num_rounds" in table_of("federation", federation):
            raise UsageError("rounds, federation: both give num_rounds; give only one of them")
        sections: dict[str, object] = {
            "study": given(name=_name(name, data), seed=seed),
            "model": headed("model", "base", model),
            "task": task_table(task),
            "data": given(
                **dict(zip(COLUMNS, columns, strict=True)),
                **dealing,
                train=stated(source, "train"),
                test=stated(test, "test"),
                validation=stated(validation, "validation"),
                public_records=public_records,
                held_out_share=held_out_share,
            ),
            "lora": table_of("lora", lora),
            "training": table_of("training", training),
            "privacy": table_of("privacy", privacy),
            "federation": {**given(num_rounds=rounds), **table_of("federation", federation)},
            "strategy": strategy_table(strategy),
            "machine": table_of("machine", machine),
            "tracking": table_of("tracking", tracking),
        }
        recipe = read_tables(sections).resolved()
        tables = records_of(recipe, {"train": source, "test": test, "validation": validation})
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "tables", tables)

    @classmethod
    def of(cls, recipe: Recipe, tables: Mapping[str, tuple[Record, ...]] | None = None) -> Study:
        """Returns a recipe as a study, with every default."""
        study = cls.__new__(cls)
        object.__setattr__(study, "recipe", recipe.resolved())
        object.__setattr__(study, "tables", dict(tables or {}))
        return study

    @classmethod
    def from_toml(cls, source: str | PathLike[str]) -> Study:
        """Reads a recipe: a file, or its text.

        Args:
            source: A path, or a text. A string of one line without `=` and `[`, or one that ends
                with `.toml`, is a path.

        Raises:
            BadFileError: The file is missing or not valid TOML.
            RecipeError: Fields are invalid; all problems at once.
        """
        if not isinstance(source, str) or _is_path(source):
            return cls.of(read_recipe(Path(source)))
        try:
            return cls.of(parse_recipe(source))
        except tomllib.TOMLDecodeError as error:
            raise BadFileError(f"the text is not valid TOML: {error}; correct it") from error

    def to_toml(self) -> str:
        """Returns the recipe as TOML with every value; `Study.from_toml` reads an equal study.

        Raises:
            UsageError: Data are in memory, and a recipe can only name files.
        """
        if self.tables:
            raise UsageError(
                f"data: {', '.join(self.tables)} in memory, but a recipe names only files; write "
                "both with study.save(folder)"
            )
        return self.recipe.to_toml()

    def save(self, folder: str | PathLike[str]) -> Study:
        """Writes `study.toml` into a folder, and data in memory into `data/` in it.

        Only their owner can read the files of data.

        Args:
            folder: Created if it is missing.

        Returns:
            The study that reads these files; `Study.from_toml(folder / "study.toml")` equals it.

        Raises:
            UsageError: The folder has a study already.
            BadFileError: The folder cannot be written.
        """
        place = Path(folder).absolute()
        file = place / "study.toml"
        if file.exists():
            raise UsageError(f"{file} exists already and is not overwritten; choose another folder")
        saved = Study.of(self.written(place / "data"))
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(file, saved.recipe.to_toml().encode())
        except (OSError, ValueError) as error:
            raise bad_file(error, "written") from error
        return saved

    def named(self, folder: Path) -> Recipe:
        """Returns the recipe, in which data in memory are named as files of a folder."""
        names = {name: str(place) for name, place in places(self.tables, folder).items()}
        data = dataclasses.replace(self.recipe.data, **names)  # type: ignore[arg-type]
        return dataclasses.replace(self.recipe, data=data)

    def written(self, folder: Path) -> Recipe:
        """Writes data in memory as files of a folder, and returns the recipe that names them.

        Raises:
            BadFileError: The folder cannot be written.
        """
        if self.tables:
            write_tables(self.tables, folder, self.recipe.data)
        return self.named(folder)

    def plan(self) -> StudyPlan:
        """Returns the study's promise, its noise, and ε over rounds; nothing is trained.

        Raises:
            UsageError: Privacy is off.
            RefusedError: No noise meets the target.
        """
        from cloister.api.study_plan import plan_study
        from cloister.quiet import keep_quiet

        keep_quiet()
        with tempfile.TemporaryDirectory(prefix="cloister-") as folder:
            found = plan_study(self.written(Path(folder) / "data"))
        return dataclasses.replace(found, recipe=self.recipe.digest())

    def layers(self, public: object) -> LayerTable:
        """Returns how well a linear probe reads each layer of the base, to choose `model.layers`.

        Args:
            public: A file or table of texts with labels. They must be public: a choice that is made
                on private records reveals something about them, and no ledger charges it.

        Raises:
            RefusedError: The study's private records are given.
            UsageError: The task does not read texts with labels, or the base's layers cannot be
                cut.
            DataError: A row lacks what the task needs, or a label has too few records.
        """
        from cloister.quiet import keep_quiet
        from cloister.simulation.layer_choice import choose_layers

        keep_quiet()
        with tempfile.TemporaryDirectory(prefix="cloister-") as folder:
            place = Path(folder)
            source = stated(public, "test")
            if is_table(public):
                kind, data = self.recipe.task.records, self.recipe.data
                rows = records_in(public, "public", kind, data, train=False, sites=False)
                write_tables({"public": rows}, place / "public", self.recipe.data)
                source = str(places({"public": rows}, place / "public")["public"])
            if source is None:
                raise UsageError("public: missing; a file or table of public records is needed")
            return choose_layers(self.written(place / "data"), source)

    def __repr__(self) -> str:
        recipe, privacy = self.recipe, self.recipe.privacy
        noise = (
            f"epsilon={privacy.target_epsilon}"
            if privacy.noise_multiplier is None
            else f"noise_multiplier={privacy.noise_multiplier}"
        )
        promised = f"{noise}, delta={privacy.delta:g} for one {privacy.unit}"
        return (
            f"Study({recipe.study.name!r}: {recipe.task.kind} on {recipe.model.base}, "
            f"{recipe.data.sites} sites, {recipe.federation.num_rounds} rounds of "
            f"{recipe.strategy.name}, {promised if privacy.enabled else 'no privacy'})"
        )


def _name(name: str | None, data: object) -> str | None:
    """Returns a study's name; a study with its own data is not named as the quickstart."""
    return "study" if name is None and data is not None else name


def _is_path(source: str) -> bool:
    is_line = "\n" not in source and bool(source.strip())
    return is_line and (source.endswith(".toml") or not any(sign in source for sign in "=["))
