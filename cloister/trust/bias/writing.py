"""Measures a finished model by group of persons; writes JSON, a page and lines for a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.errors import UsageError
from cloister.export.forms.public_test import PublicRecords, public_records
from cloister.recipe.private_file import refuse_private_file, refuse_private_texts
from cloister.serving.model import about_adapter
from cloister.trust.attack.page import figure
from cloister.trust.bias.groups import groups_by_column, groups_by_terms, read_terms
from cloister.trust.bias.language import LanguageFound, measure_language, read_tests
from cloister.trust.bias.language_page import language_words
from cloister.trust.bias.measured import BiasFound, measure_groups
from cloister.trust.bias.page import bias_page
from cloister.trust.intervals import Interval
from cloister.trust.opening import open_run, recipe_of
from cloister.trust.outcomes import METRICS
from cloister.trust.writing import PAGE, check_free, write_report

JSON, WORDS = "bias.json", "words.txt"


@dataclass(frozen=True, kw_only=True)
class BiasReport:
    """A written report on groups.

    Attributes:
        folder: The folder with `index.html`, `bias.json` and `words.txt`.
        document: The content of the JSON file.
        found: The figures by group; None: no groups were given.
        language: For a chat model, the figures of sentence pairs, BBQ and harmful prompts; None:
            no tests were given.
    """

    folder: Path
    document: Mapping[str, Any]
    found: BiasFound | None
    language: LanguageFound | None

    @property
    def pairs(self) -> Mapping[str, Interval]:
        """Returns, by kind of bias, the share of pairs whose stereotype is more likely; or {}."""
        return {} if self.language is None else self.language.pairs


def measure_bias(
    run: str | Path,
    out: str | Path,
    *,
    group: str | None = None,
    terms: str | Path | None = None,
    test: str | Path | None = None,
    pairs: str | Path | None = None,
    bbq: str | Path | None = None,
    harm: str | Path | None = None,
    harm_terms: str | Path | None = None,
    judge: str | Path | None = None,
    judge_labels: Sequence[str] = (),
    against: str | Path | None = None,
    seed: int = 0,
    base: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> BiasReport:
    """Measures differences between groups of persons in a finished model, on public records.

    Args:
        run: A finished run's folder, or an adapter's.
        out: A new folder for `index.html`, `bias.json` and `words.txt`.
        group: A column of the test file, whose values are the groups.
        terms: In place of `group`, a TOML file with terms by group, which are searched in texts.
        test: A file of public records; None: the run's public test set.
        pairs: For a chat model, CrowS-Pairs' CSV or a file with its columns.
        bbq: For a chat model, one of BBQ's JSONL files, or `built-in`.
        harm: For a chat model, a file of prompts in the form of RealToxicityPrompts or AdvBench,
            or with a column `prompt`; or `built-in`.
        harm_terms: A TOML file with the lists `harmful` and `refusal`; None: short built-in ones.
        judge: A run of a classifier that judges replies in place of the list `harmful`.
        judge_labels: Those of its labels that mean harm.
        against: Another run of the same task and labels, such as one without privacy.
        seed: The seed of the intervals and of the permutation test.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        on_stage: Is called with the name of each stage; None: it is not called.

    Returns:
        The folder and its content: scores, selection rates, error rates and calibration by group,
        each with a 95 % interval and the number of records.

    Raises:
        UsageError: The task does not apply, groups are given twice or not at all, a group's column
            has one value, there is no public test set, or the folder exists already.
        RefusedError: A file holds private records of the study, or the test set those of
            `against`.
        BadFileError: The adapter is missing, or a file cannot be read or written.
        ModelFileError: The base is missing, or is not the one that was trained.

    Guarantees:
        Files that are known to hold the study's private records are refused. For an adapter
        without its run they are not known, and up to a tenth of the texts may be the study's
        (`recipe.private_file.MOST_SHARED`). The report is complete or does not exist.
    """
    place, target = Path(run), Path(out)
    if group is not None and terms is not None:
        raise UsageError("--group and --terms given; choose one")
    asked = {"--pairs": pairs, "--bbq": bbq, "--harm": harm}
    language = [option for option, file in asked.items() if file is not None]
    if group is None and terms is None and not language:
        raise UsageError("no groups given; name a column with --group, or a file with --terms")
    if against is not None and group is None and terms is None and harm is None:
        raise UsageError("--against compares groups; add --group COLUMN or --terms FILE")
    check_free(target)
    about, (_, recipe) = about_adapter(place), recipe_of(place)
    if language and about.task.kind != "causal-lm":
        raise UsageError(
            f"{language[0]}: needs a language model (causal-lm), but {run} is a model for "
            f"{about.task.kind}; leave it out"
        )
    tests = read_tests(
        recipe,
        seed,
        pairs=None if pairs is None else Path(pairs),
        bbq=None if bbq is None else Path(bbq),
        harm=None if harm is None else Path(harm),
        harm_terms=None if harm_terms is None else Path(harm_terms),
        judge=None if judge is None else Path(judge),
        judge_labels=judge_labels,
    )
    groups = public = None
    if group is not None or terms is not None:
        listed = None if terms is None else read_terms(Path(terms))
        public = public_records(about, recipe, None if test is None else Path(test))
        if public is None:
            raise UsageError(f"{run}: has no public test set; name a public file with --test")
        if against is not None:
            _refuse_of_other(Path(against), public)
        if group is not None:
            columns = about.data if recipe is None or test is not None else recipe.data
            groups = groups_by_column(public.place, columns, group, len(public.records))
        else:
            assert listed is not None  # one of both is given
            groups = groups_by_terms(public.records, listed, Path(str(terms)).name)
    say = on_stage or (lambda stage: None)
    say("loading the base model")
    opened = open_run(place, base)
    other = None
    if against is not None:
        say("loading the other model")
        other = open_run(Path(against), base)
    found = None
    if groups is not None and public is not None:
        say(f"{len(public.records):,} records in {len(groups.names)} groups")
        beside = None if other is None else other.model
        found = measure_groups(opened.model, public.records, groups, seed, beside)
    said = None
    if tests:
        others = {} if other is None else {Path(str(against)).name: other.model}
        said = measure_language(opened.model, tests, seed, others, say)
    metric = METRICS[opened.kind]
    source = "" if public is None else public.words
    by = "" if groups is None else groups.by
    document = {
        "version": 1,
        "model": opened.name,
        "task": opened.kind,
        "metric": metric.name,
        "source": source,
        "groups_by": by,
        "left_out": 0 if groups is None else groups.left_out,
        "against": None if other is None else str(against),
        "seed": seed,
        "found": None if found is None else found.to_json(),
        **({"pairs": {}, "bbq": None, "harm": None} if said is None else said.to_json()),
    }
    title = f"Whom {opened.name} treats worse"
    tells = f"A model of {opened.kind}"
    if groups is not None:
        tells += f" on {source}, in groups by {by}"
        tells += f" ({groups.left_out} records are in none)" if groups.left_out else ""
    html = bias_page(
        title,
        f"{tells}, seed {seed}.",
        metric,
        found,
        None if other is None else Path(str(against)).name,
        said,
    )
    words = _words(metric.name, source, by, found, said)
    write_report(target, {JSON: document, PAGE: html, WORDS: words})
    return BiasReport(folder=target, document=document, found=found, language=said)


def _refuse_of_other(against: Path, public: PublicRecords) -> None:
    """Refuses the private records of the other run, which is scored too."""
    _, recipe = recipe_of(against)
    if recipe is not None:
        if public.place.is_file():
            refuse_private_file(recipe, public.place, "--against")
        refuse_private_texts(recipe, public.records, "--against")


def _words(
    metric: str, source: str, by: str, found: BiasFound | None, said: LanguageFound | None
) -> str:
    """Returns the report's lines for a card; `cloister model card --bias` reads the file."""
    lines = []
    if found is not None:
        lines.append(f"{metric} on {source}, in groups by {by}, at 95 %:")
        lines += [
            f"- {one.name}: {figure(one.score)} on {one.records} records" for one in found.groups
        ]
        lines.append(
            f"Largest gap {found.gap:.3f}; random groups have it in {found.chance:.1%} of draws."
        )
    if said is not None:
        lines += language_words(said)
    return "\n".join(lines) + "\n"
