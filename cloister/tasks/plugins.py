"""Loads tasks from other packages, after a recipe and `site.toml` named them.

A site imports a task because its own `site.toml` names it (`accept.tasks`, `records.task`), never
because a coordinator does: `installed_problem` looks the study's plug-in up without importing, and
only for a name that the site's file has. Its loss then goes through the site's preflight and proof.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.data.records import LabelsRecord, Record, RecordKind, TextRecord, TokenRecord
from cloister.errors import PluginError, UsageError
from cloister.fields import read_section
from cloister.plugins import Origin, is_installed, load, origin, path_of, said, source_version
from cloister.tasks.config import TaskConfig, TaskPlugin, known_kinds
from cloister.tasks.registry import BUILT_IN, usual_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from cloister.tasks.task import Task

GROUP = "cloister.tasks"
KEY = "task.kind"
# Fields of a task's class that the study sets; the class's other fields are its options.
BOUND = ("labels", "tokenizer", "max_length", "pad_id")


def check_names(key: str, names: Iterable[str]) -> None:
    """Refuses names that are neither a built-in kind nor an installed plug-in's; imports nothing.

    Raises:
        UsageError: A name is neither.
    """
    for number, name in enumerate(names, 1):
        if name not in BUILT_IN and not is_installed(name, GROUP):
            raise UsageError(
                f"{key}: {shortened(name)} given as value {number}; {known_kinds()} needed"
            )


def read_task(
    table: Mapping[str, object], problems: list[str], *, is_whole: bool, imports: bool = False
) -> TaskConfig | None:
    """Reads the `[task]` section of a recipe or document.

    Args:
        table: Its table. For a plug-in it holds a table `plugin`; a user's own recipe need state
            only its `options`.
        problems: Receives one line for each problem.
        is_whole: Whether every field must be there.
        imports: Whether a plug-in may be imported, to check and complete its options. True for a
            user's own recipe; a recipe from elsewhere, or of a run that has begun, is read as it
            is.
    """
    kind, plugin = table.get("kind"), table.get("plugin")
    rest = {key: value for key, value in table.items() if key != "plugin"}
    is_named = isinstance(kind, str) and kind not in BUILT_IN and is_installed(kind, GROUP)
    if plugin is None and not (imports and is_named):
        return read_section(TaskConfig, rest, "task", problems, is_whole=is_whole)
    if not isinstance(plugin, dict | None) or not isinstance(kind, str):
        problems.append(f"task.plugin: {shortened(plugin)} given; needed is a table [task.plugin]")
        return None
    if kind in BUILT_IN:
        problems.append(f"task.plugin: given, but the task {kind} is built in; remove the table")
        return None
    stated = (_imported if imports else _carried)(kind, plugin or {}, problems)
    reads = "text" if stated is None else stated.records
    like = usual_task(reads)
    section = read_section(TaskConfig, {**rest, "kind": like}, "task", problems, is_whole=is_whole)
    if stated is None or section is None:
        return None
    try:
        return dataclasses.replace(section, kind=kind, plugin=stated)
    except UsageError as error:
        problems.append(f"task.{error}")
        return None


def named(kind: type, **options: object) -> tuple[str, TaskPlugin]:
    """Returns `task.kind` and the plug-in's facts for a class that was defined in Python.

    Args:
        kind: The class. A class of a script or notebook gets a name that only this process can use.
        options: Its own options.

    Raises:
        UsageError: The class is not a task, or an option is invalid.
    """
    problems: list[str] = []
    name = path_of(kind, KEY)
    stated = _stated(_find(name), kind, options, problems)
    if stated is None:
        raise UsageError("\n".join(problems))
    return name, stated


def installed_problem(config: TaskConfig) -> str | None:
    """Returns why a study's plug-in cannot run here; None: it can. Nothing is imported.

    Args:
        config: The study's `[task]` section, whose `kind` the site's own file names.
    """
    plugin = config.plugin
    if plugin is None:
        return None
    if not plugin.distribution:
        return (
            f"task.plugin: {config.kind} is not in a package, so this site cannot check which code "
            "it is; ask the coordinator to publish it as a package"
        )
    try:
        found = _find(config.kind)
    except UsageError as error:
        return str(error)
    if (found.distribution, found.version) == (plugin.distribution, plugin.version):
        return None
    here = f"{found.distribution} {found.version}" if found.distribution else "no package"
    return (
        f"task.plugin: the study runs {config.kind} of {plugin.distribution} {plugin.version}, but "
        f"{here} is installed at this site; review that version, then install it"
    )


def check_trusted(config: TaskConfig, trusted: str | None, key: str) -> None:
    """Refuses an adapter's plug-in that its user did not name. Nothing is imported.

    The adapter may come from somebody else, and importing a module runs its code.

    Args:
        config: The adapter's task.
        trusted: The plug-in that the user named; None: none.
        key: The option by which it is named, for messages.

    Raises:
        UsageError: The task is a plug-in that was not named, or not installed in its version.
    """
    if config.plugin is None:
        if trusted is not None:
            raise UsageError(f"{key}: {shortened(trusted)} given; this adapter's task is built in")
        return
    if trusted != config.kind:
        raise UsageError(
            f"{key}: {'none' if trusted is None else shortened(trusted)} given; this adapter's "
            f"task is the plug-in {config.kind}, whose code would run here: give {key} "
            f"{config.kind} if you trust it"
        )
    if config.plugin.distribution and (problem := installed_problem(config)) is not None:
        raise UsageError(problem)


def make_plugin(
    config: TaskConfig, labels: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, pad_id: int
) -> Task:
    """Binds a plug-in's task in a `GuardedTask`.

    Raises:
        UsageError: It is not installed here in the version that the recipe states, or is not a
            task.
    """
    from cloister.tasks.guard import GuardedTask

    assert config.plugin is not None
    found = _find(config.kind)
    kind = load(found.path, KEY)
    problems: list[str] = []
    here = _stated(found, kind, config.plugin.table()["options"], problems)
    if here is None:
        raise UsageError("\n".join(problems))
    _same(config.kind, here, config.plugin.table())
    options = _own_options(kind, config.plugin.table()["options"], [])
    try:
        made = kind(labels, tokenizer, config.max_length, pad_id, **options)
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{KEY}: {config.kind} cannot be made: {said(error)}") from error
    return GuardedTask(config.kind, made, config.plugin)


def plugin_records(kind: str) -> RecordKind:
    """Imports a plug-in and returns the kind of records that its task reads.

    Raises:
        UsageError: It cannot be used.
    """
    return _records(kind, load(_find(kind).path, KEY))


def labels_in(kind: str) -> Callable[[Record], Iterable[str]]:
    """Returns the function that lists a record's labels: a plug-in's own `labels_in`, else the
    default.

    Args:
        kind: The task's kind, or which records a built-in one reads.
    """
    if kind in BUILT_IN or kind in typing.get_args(RecordKind):
        return _labels_in
    own = getattr(load(_find(kind).path, KEY), "labels_in", None)
    if own is None:
        return _labels_in

    def find(record: Record) -> list[str]:
        try:
            return [str(label) for label in own(record)]
        except (Exception, SystemExit) as error:  # without its text, which may quote the record
            raise PluginError(
                f"{KEY}: {kind} failed in labels_in: {type(error).__name__}"
            ) from None

    return find


def _labels_in(record: Record) -> Iterable[str]:
    if isinstance(record, TextRecord):
        return (record.label,)
    if isinstance(record, TokenRecord):
        return {tag[2:] for tag in record.tags if tag != "O"}
    if isinstance(record, LabelsRecord):
        return record.labels
    return ()


def _find(name: str) -> Origin:
    return origin(name, GROUP, KEY)


def _carried(kind: str, table: Mapping[str, object], problems: list[str]) -> TaskPlugin | None:
    """Returns a plug-in's facts as a document states them."""
    options = table.get("options")
    if not isinstance(options, dict):
        problems.append("task.plugin.options: missing; a table is needed")
        return None
    stated = {**table, "options": canonical(options).decode()}
    return read_section(TaskPlugin, stated, "task.plugin", problems, is_whole=True)


def _imported(kind: str, table: Mapping[str, object], problems: list[str]) -> TaskPlugin | None:
    """Imports a plug-in and returns its facts; facts in the recipe must equal them."""
    try:
        found = _find(kind)
        here = _stated(found, load(found.path, KEY), table.get("options", {}), problems)
        if here is not None:
            _same(kind, here, table)
    except UsageError as error:
        problems.append(str(error))
        return None
    return here


def _same(kind: str, here: TaskPlugin, table: Mapping[str, object]) -> None:
    has = here.table()
    unknown = sorted(table.keys() - has.keys())
    if unknown:
        raise UsageError(f"task.plugin.{shortened(unknown[0])[1:-1]}: unknown key; give options")
    for key in ("distribution", "version", "records"):
        if table.get(key, has[key]) != has[key]:
            raise UsageError(
                f"task.plugin.{key}: the recipe was written with {shortened(table[key])} of "
                f"{kind}, but {shortened(has[key])} is installed; install the recipe's, or remove "
                "[task.plugin] and start a new run"
            )


def _stated(found: Origin, kind: type, options: object, problems: list[str]) -> TaskPlugin | None:
    """Returns the facts of a class, with each option's value; None: an option is invalid."""
    records = _records(found.path, kind)
    values = _own_options(kind, options, problems)
    if problems:
        return None
    try:
        text = canonical(values).decode()
    except (TypeError, ValueError) as error:
        problems.append(
            f"task.plugin.options: a value is not a number, text or list: {said(error)}"
        )
        return None
    return TaskPlugin(
        distribution=found.distribution,
        version=found.version if found.distribution else source_version(kind),
        records=records,  # type: ignore[arg-type]  # checked
        options=text,
    )


def _own_options(kind: type, given: object, problems: list[str]) -> dict[str, Any]:
    """Returns a class's options with their values, checked against its fields' types and bounds."""
    if not isinstance(given, Mapping):
        problems.append(f"task.plugin.options: {shortened(given)} given; a table is needed")
        return {}
    own = []
    if dataclasses.is_dataclass(kind):
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except Exception as error:
            raise UsageError(f"{KEY}: types of {kind.__name__}'s fields: {said(error)}") from error
        own = [
            (f.name, hints[f.name], dataclasses.field(default=f.default))
            for f in dataclasses.fields(kind)
            if f.init and f.name not in BOUND
        ]
    table = dataclasses.make_dataclass("Options", own, frozen=True, kw_only=True)
    section = read_section(table, given, "task.plugin.options", problems)
    if section is None:
        return {}
    return {name: v for name, *_ in own if (v := getattr(section, name)) is not None}


def _records(name: str, kind: type) -> RecordKind:
    """Returns the kind of records that a class reads, and checks that the class is a task.

    Raises:
        UsageError: It is not a task.
    """
    needed = ("encode", "collate", "record_losses", "meter")
    missing = [method for method in needed if not callable(getattr(kind, method, None))]
    if missing:
        raise UsageError(
            f"{KEY}: {name} has no method {missing[0]}; derive it from "
            "cloister.tasks.text_task.TextTask"
        )
    records = getattr(kind, "record_kind", None)
    if records not in ("text", "tokens"):
        raise UsageError(
            f'{KEY}: record_kind of {name} is {shortened(records)}; "text" or "tokens" is needed '
            "(conversations are the causal LM's)"
        )
    return typing.cast(RecordKind, records)
