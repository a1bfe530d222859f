"""`cloister.Study`: a whole study as one value, in Python or as a recipe in TOML."""

from __future__ import annotations

import dataclasses
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloister.api.dealing import Dealt
from cloister.api.memory_tables import NEEDED, is_table, places, records_in, write_tables
from cloister.data.config import DataConfig
from cloister.data.records import Record, RecordKind
from cloister.errors import BadFileError, UsageError
from cloister.fields import whole_table
from cloister.files import bad_file, write_whole
from cloister.names import is_name
from cloister.recipe import Recipe, parse_recipe, read_recipe, read_tables
from cloister.strategies.config import PluginStrategy, StrategyConfig
from cloister.strategies.plugins import named as named_strategy
from cloister.strategies.strategy import Strategy
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import named as named_task

if TYPE_CHECKING:
    from cloister.api.study_plan import StudyPlan

# A section of a recipe: its fields by name, or its dataclass.
Section = Mapping[str, object] | Any
Columns = ("text", "label", "tokens", "tags", "messages", "site", "person")
# What the recipe names where rows are in memory and no file was written yet. Each study's rows are
# beside it; these names only let the rules of `[data]` hold.
IN_MEMORY = "in-memory/{}.jsonl"


@dataclass(frozen=True, init=False, repr=False)
class Study:
    """A study: a recipe with, where the data are in memory, their records.

    Two studies are equal if their recipes are, every default stated, and their records in memory.

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
        task: The task's kind, a class of one's own (docs/extending.md), or the whole section
            `[task]`.
        data: Training data: a file, hub id or `synthetic:hospitals` whose rows name their sites;
            `cloister.partition(…)` of such or of a table in memory; or a table for each site by the
            site's name. A table is a pandas.DataFrame, pyarrow.Table, datasets.Dataset or list of
            dicts. Absent: the quickstart's.
        test: The public test set: a table, file or hub id.
        validation: A public validation set, likewise.
        privacy: What every site is promised: `cloister.Privacy(…)`.
        strategy: A strategy's name, an object or class of one's own (docs/extending.md), or the
            whole section `[strategy]`.
        rounds: Rounds of the study: `federation.num_rounds`.
        name: What the study is called; absent: `study`, or the quickstart's name without `data`.
        seed: Root of everything that may be reproducible.
        public_records: The declared number of records of a site, or one for each site in order of
            their names. Never taken from the data: the sample rate follows from it.
        text: Column of a text; likewise `label`, `tokens`, `tags`, `messages`, `site`, `person`.
        label: Column of its label.
        tokens: Column of a sentence's words.
        tags: Column of their tags.
        messages: Column of a conversation.
        site: Column that names the site, where rows name theirs.
        person: Column that names the person.
        lora: The section `[lora]`; likewise `training`, `federation`, `machine`, `tracking`.
        training: The section `[training]`.
        federation: The section `[federation]`.
        machine: The section `[machine]`.
        tracking: The section `[tracking]`.

    Attributes:
        recipe: Every field with its value. Where rows are in memory it names no real file.
        tables: Records in memory by what they are: `train`, `test`, `validation`.

    Raises:
        RecipeError: Fields are invalid or contradict each other; all problems at once.
        DataError: A row in memory lacks what the task needs.
        UsageError: Data are of a type that holds no rows.
    """

    recipe: Recipe
    tables: Mapping[str, tuple[Record, ...]]

    def __init__(
        self,
        *,
        model: str | PathLike[str] | Section | None = None,
        task: str | type | Section | None = None,
        data: object = None,
        test: object = None,
        validation: object = None,
        privacy: Section | None = None,
        strategy: str | Strategy | Section | None = None,
        rounds: int | None = None,
        name: str | None = None,
        seed: int | None = None,
        public_records: int | Sequence[int] | None = None,
        text: str | None = None,
        label: str | None = None,
        tokens: str | None = None,
        tags: str | None = None,
        messages: str | None = None,
        site: str | None = None,
        person: str | None = None,
        lora: Section | None = None,
        training: Section | None = None,
        federation: Section | None = None,
        machine: Section | None = None,
        tracking: Section | None = None,
    ) -> None:
        columns = (text, label, tokens, tags, messages, site, person)
        source, dealing = _source(data)
        if rounds is not None and "num_rounds" in _table(federation):
            raise UsageError("rounds, federation: num_rounds given by both; give it by one")
        sections: dict[str, object] = {
            "study": _given(name=name or ("study" if data is not None else None), seed=seed),
            "model": _headed("base", model),
            "task": _task(task),
            "data": _given(
                **dict(zip(Columns, columns, strict=True)),
                **dealing,
                train=_stated(source, "train"),
                test=_stated(test, "test"),
                validation=_stated(validation, "validation"),
                public_records=public_records,
            ),
            "lora": _table(lora),
            "training": _table(training),
            "privacy": _table(privacy),
            "federation": {**_given(num_rounds=rounds), **_table(federation)},
            "strategy": _strategy(strategy),
            "machine": _table(machine),
            "tracking": _table(tracking),
        }
        recipe = read_tables(sections).resolved()
        tables = _tables(recipe, {"train": source, "test": test, "validation": validation})
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "tables", tables)

    @classmethod
    def of(cls, recipe: Recipe, tables: Mapping[str, tuple[Record, ...]] | None = None) -> Study:
        """A recipe as a study, every default stated."""
        study = cls.__new__(cls)
        object.__setattr__(study, "recipe", recipe.resolved())
        object.__setattr__(study, "tables", dict(tables or {}))
        return study

    @classmethod
    def from_toml(cls, source: str | PathLike[str]) -> Study:
        """Reads a recipe: a file, or its text.

        Args:
            source: A path, or a text (which has a line break, or names no `.toml` file).

        Raises:
            BadFileError: The file is missing, or it is not valid TOML.
            RecipeError: Anything in it is invalid; all problems at once.
        """
        if not isinstance(source, str) or ("\n" not in source and source.endswith(".toml")):
            return cls.of(read_recipe(Path(source)))
        try:
            return cls.of(parse_recipe(source))
        except tomllib.TOMLDecodeError as error:
            raise BadFileError(f"the text is not valid TOML: {error}; correct it") from error

    def to_toml(self) -> str:
        """The recipe as TOML, every value stated; `Study.from_toml` reads it back equal.

        Raises:
            UsageError: Data are in memory, which a recipe cannot name.
        """
        if self.tables:
            raise UsageError(
                f"data: {', '.join(self.tables)} in memory, and a recipe names files; write both "
                "with study.save(folder)"
            )
        return self.recipe.to_toml()

    def save(self, folder: str | PathLike[str]) -> Study:
        """Writes `study.toml` into a folder, and data in memory into `data/` in it.

        The files of data are readable by their owner alone.

        Args:
            folder: Made where it is missing.

        Returns:
            The study that reads these files; `Study.from_toml(folder / "study.toml")` equals it.

        Raises:
            UsageError: There is a study already.
            BadFileError: The folder cannot be written.
        """
        place = Path(folder).absolute()
        file = place / "study.toml"
        if file.exists():
            raise UsageError(
                f"{file} exists already and is not written over; choose another folder"
            )
        saved = Study.of(self.written(place / "data"))
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(file, saved.recipe.to_toml().encode())
        except (OSError, ValueError) as error:
            raise bad_file(error, "written") from error
        return saved

    def named(self, folder: Path) -> Recipe:
        """The recipe with data in memory named as files of a folder."""
        names = {name: str(place) for name, place in places(self.tables, folder).items()}
        data = dataclasses.replace(self.recipe.data, **names)  # type: ignore[arg-type]
        return dataclasses.replace(self.recipe, data=data)

    def written(self, folder: Path) -> Recipe:
        """The recipe with data in memory named, and written, as files of a folder.

        Raises:
            BadFileError: The folder cannot be written.
        """
        if self.tables:
            write_tables(self.tables, folder, self.recipe.data)
        return self.named(folder)

    def plan(self) -> StudyPlan:
        """What the study promises, the noise, and ε over rounds; nothing is trained.

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


def _table(section: Section | None) -> dict[str, object]:
    """A section's fields, from a mapping or its dataclass."""
    if section is None:
        return {}
    if isinstance(section, Mapping):
        return dict(section)
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return whole_table(section)
    raise UsageError(
        f"{type(section).__name__} given for a section of the recipe; a dict of its fields, or "
        "what the section is made of, is needed"
    )


def _headed(key: str, section: object) -> dict[str, object]:
    """A section that may be given by its first field alone."""
    if isinstance(section, str | PathLike):
        return {key: str(section)}
    return _table(section)


def _task(task: object) -> dict[str, object]:
    """`[task]` from a kind, a class of one's own or a section."""
    if isinstance(task, type):
        kind, plugin = named_task(task)
        return {"kind": kind, "plugin": plugin.table()}
    return task.table() if isinstance(task, TaskConfig) else _headed("kind", task)


def _strategy(strategy: object) -> dict[str, object]:
    """`[strategy]` from a name, a strategy of one's own or a section."""
    if isinstance(strategy, PluginStrategy):
        return strategy.table()
    if strategy is None or isinstance(strategy, str | Mapping | StrategyConfig):
        return _headed("name", strategy)
    return named_strategy(cast(Strategy, strategy)).table()


def _given(**fields: object) -> dict[str, object]:
    """The fields that have a value."""
    return {key: value for key, value in fields.items() if value is not None}


def _source(data: object) -> tuple[object, dict[str, object]]:
    """The training data themselves, and the fields of `[data]` that say how they are dealt."""
    if isinstance(data, Dealt) and isinstance(data.data, Mapping):
        raise UsageError("data: sites given to be dealt; give them as data, without partition")
    if isinstance(data, Dealt):
        return data.data, data.fields
    if is_table(data):
        raise UsageError(
            "data: one table given, without its sites; deal it with "
            'cloister.partition(table, sites=5), or by="column" where rows name their sites'
        )
    if isinstance(data, Mapping):
        return data, {"sites": len(data), "partition": "column"}
    return data, {}


def _stated(source: object, split: str) -> str | None:
    """What the recipe names as a source.

    Raises:
        UsageError: It is no source and no table.
    """
    if source is None or isinstance(source, str):
        return source
    if isinstance(source, PathLike):
        return str(source)
    if is_table(source) or (split == "train" and isinstance(source, Mapping)):
        return IN_MEMORY.format(split)
    name = "data" if split == "train" else split
    raise UsageError(f"{name}: {type(source).__name__} given; a file, a hub id, or {NEEDED}")


def _tables(recipe: Recipe, sources: Mapping[str, object]) -> dict[str, tuple[Record, ...]]:
    """Reads what is in memory.

    Raises:
        DataError: A row lacks what the task needs, or a label that the public sets do not have.
    """
    held = {
        split: source
        for split, source in sources.items()
        if source is not None and not isinstance(source, str | PathLike)
    }
    if not held:
        return {}
    kind, data = recipe.task.records, recipe.data
    tables = {
        split: _site_tables(source, kind, data)
        if isinstance(source, Mapping)
        else records_in(
            source,
            "data" if split == "train" else split,
            kind,
            data,
            train=split == "train",
            sites=split == "train" and data.partition == "column",
        )
        for split, source in held.items()
    }
    _check_public(recipe, kind, tables)
    return tables


def _site_tables(
    sites: Mapping[str, object], kind: RecordKind, data: DataConfig
) -> tuple[Record, ...]:
    """The records of every site's own table, each with its site."""
    unfit = [name for name in sites if not isinstance(name, str) or not is_name(name)]
    if unfit:
        raise UsageError(
            f"data: {unfit[0]!r} given as a site's name; it names files, so it must be a string "
            "without / and \\ that begins with no dot"
        )
    return tuple(
        dataclasses.replace(record, site=name)
        for name in sorted(sites)
        for record in records_in(sites[name], name, kind, data, train=True, sites=False)
    )


def _check_public(
    recipe: Recipe, kind: RecordKind, tables: Mapping[str, tuple[Record, ...]]
) -> None:
    """Holds public sets in memory to what files of them are held to.

    Raises:
        UsageError: The training data are given as a public set.
        DataError: Training data have labels that the study does not.
    """
    from cloister.tasks.public_labels import study_labels

    for split in ("test", "validation"):
        if split in tables and _bare(tables[split]) == _bare(tables.get("train", ())):
            raise UsageError(
                f"{split}: the training data given; scores on private records are releases that "
                "nobody charges: give a public set"
            )
    public = {split: records for split, records in tables.items() if split != "train"}
    is_whole = {"train", "test"} <= tables.keys() and (
        recipe.data.validation is None or "validation" in tables
    )
    if is_whole:
        study_labels(recipe.task.labels, recipe.task.kind, {"data": tables["train"]}, public)


def _bare(records: tuple[Record, ...]) -> list[Record]:
    return [dataclasses.replace(record, site=None, person=None) for record in records]
