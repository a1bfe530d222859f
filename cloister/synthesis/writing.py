"""Draws records from a finished language model, and writes them with facts, card and metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister.data.outputs import check_new, new_file, sha256_of
from cloister.data.values import Row
from cloister.errors import CloisterError, UsageError
from cloister.evidence.began import FormerSite
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.export.adapter_folder import ReleaseFacts, adapter_folder
from cloister.export.croissant import Publication
from cloister.export.forms.finished import recipe_beside
from cloister.export.synthetic_facts import SyntheticFacts
from cloister.export.synthetic_files import Synthesized, shown_base, write_beside
from cloister.export.text_filters import MOST_CHARACTERS, TextFilter
from cloister.recipe import Recipe, read_run_recipe
from cloister.serving.model import about_adapter, load
from cloister.synthesis.draws import Draws, planned_draws
from cloister.synthesis.model_promises import (
    check_no_trial,
    check_promised,
    site_promises,
)
from cloister.synthesis.part_file import PartFile, opened_part
from cloister.synthesis.public_prompts import PublicPrompt, read_prompts
from cloister.training.generation import Nucleus

# Most records of a file; a small model on a CPU draws a million short ones in days.
MOST_RECORDS = 10_000_000
# Longest drawn text in tokens.
MOST_TOKENS = 8192
# A set is given up once this many times its records were drawn: the model repeats itself.
MOST_DRAWN = 10


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """How records are drawn and which are kept.

    Attributes:
        count: Number of records.
        is_text: Whether the study learnt plain texts: prompts are their beginnings.
        temperature: Divides the logits; 1 is what was trained.
        top_p: Draws from the most likely tokens that have this probability together.
        most_tokens: Longest text in tokens.
        fewest_characters: Shorter texts are left out.
        most_characters: Longer texts are left out.
        keeps_duplicates: Whether equal texts are kept.
        seed: Seed of the texts.
    """

    count: int
    is_text: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    most_tokens: int = 128
    fewest_characters: int = 1
    most_characters: int = MOST_CHARACTERS
    keeps_duplicates: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("count", self.count, 1, MOST_RECORDS),
            ("most-tokens", self.most_tokens, 1, MOST_TOKENS),
            ("min-length", self.fewest_characters, 1, MOST_CHARACTERS),
            ("max-length", self.most_characters, self.fewest_characters, MOST_CHARACTERS),
        ):
            if not least <= value <= most:
                raise UsageError(f"--{name}: {value} given; from {least:,} to {most:,} is needed")
        # A colder draw is greedy in float32, a hotter one is uniform.
        if not 0.01 <= self.temperature <= 100:
            raise UsageError(f"--temperature: {self.temperature} given; 0.01 to 100 is needed")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p: {self.top_p} given; more than 0 and at most 1 is needed")

    def words(self) -> dict[str, str | int | float]:
        """Returns the options as the card states them."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "most tokens": self.most_tokens,
            "characters": f"{self.fewest_characters:,} to {self.most_characters:,}",
            "equal texts": "kept" if self.keeps_duplicates else "left out",
            "seed": self.seed,
        }


def synthesize(
    run: Path,
    out: Path,
    options: SynthesisOptions,
    *,
    prompts: Path | None = None,
    publication: Publication | None = None,
    without_promise: bool = False,
    base: str | None = None,
    device: str | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_records: Callable[[int], None] = lambda records: None,
) -> Synthesized:
    """Draws records from a finished language model and writes them.

    Args:
        run: A finished run's folder, or its adapter's.
        out: A new JSONL file; an interrupted one is continued.
        options: How records are drawn.
        prompts: A JSONL file of public prompts; None: none.
        publication: What its publisher states; None: nothing.
        without_promise: Whether a model whose ε is ∞ or not known may be used; the card then says
            ε = ∞ of any model.
        base: The base's folder or hub id on this machine; None: as the adapter names it.
        device: `cpu`, `cuda`, …; None: a GPU if there is one.
        on_stage: Gets the name of each stage.
        on_records: Gets the number of records so far, after each batch.

    Raises:
        UsageError: An option does not apply, or the file exists.
        RefusedError: The model's ε is ∞ or not known.
        CloisterError: The model repeats itself so much that the records cannot be reached.
        BadFileError: A file cannot be read or written.
        ModelFileError: The base is missing, or not the one that was trained.

    Guarantees:
        No private record is read, so the records are post-processing of the model.
    """
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"--out: {out} given; records are written to a new .jsonl file")
    check_new(out)
    about = about_adapter(run)
    if about.task.kind != "causal-lm":
        raise UsageError(
            f"{run}: a model for {about.task.kind} writes no text; synthesize needs one for "
            "causal-lm"
        )
    known = read_prompts(prompts, is_text=options.is_text)
    folder = adapter_folder(run)
    fingerprint = adapter_sha256(adapter_files(folder))
    recipe, sites = _origin(folder, about, fingerprint, run, without_promise=without_promise)
    promises = {site: None if one is None else one.promise for site, one in sites.items()}
    check_promised(promises, run, is_asked=without_promise)
    on_stage("loading the base model")
    draws = planned_draws(
        load(run, device, base=base),
        known,
        count=options.count,
        is_text=options.is_text,
        nucleus=Nucleus(options.temperature, options.top_p),
        most_tokens=options.most_tokens,
        seed=options.seed,
    )
    declared = {
        "adapter": fingerprint,
        "count": options.count,
        "texts": options.is_text,
        **options.words(),
        "prompts": "" if prompts is None else sha256_of(prompts),
        "batch": draws.model.max_tokens,
    }
    on_stage("drawing records")
    chosen = TextFilter(
        options.fewest_characters, options.most_characters, options.keeps_duplicates
    )
    with opened_part(out, declared) as part:
        rows = _drawn(draws, part, chosen, options, on_records)
        with new_file(out) as (writer, temporary):
            columns: tuple[str, ...] = ()
            for row in rows:
                writer.add(row, out.name)
                columns = tuple(row)
            writer.end()
            digest = sha256_of(temporary)
            facts = SyntheticFacts(
                file=out.name,
                sha256=digest,
                records=options.count,
                columns=columns,
                study=folder.name if recipe is None else recipe.study.name,
                digest="" if recipe is None else recipe.digest(),
                base=shown_base(about.model.base),
                base_sha256=about.model.sha256 or "",
                adapter_sha256=fingerprint,
                public=_public_file(recipe),
                promises=promises,
                sampling=options.words() | _prompt_words(prompts, known),
                dropped=dict(sorted(chosen.dropped.items())),
                created=datetime.now(UTC).date().isoformat(),
                alone={site: one.alone for site, one in sites.items() if one and one.alone},
            )
            done = write_beside(out, facts, publication or Publication())
        part.remove()
    return done


def _origin(
    folder: Path, about: ReleaseFacts, fingerprint: str, run: Path, *, without_promise: bool
) -> tuple[Recipe | None, Mapping[str, FormerSite | None]]:
    """Returns the recipe of an adapter's run and the promises to its sites, if the run is known.

    Without a promise every site's is unknown.
    """
    file = recipe_beside(folder, about)
    if file is None:
        return None, {}
    recipe = read_run_recipe(file)
    trained = fingerprint if about.compressed is None else about.compressed.adapter_sha256
    sites = site_promises(file.parent, recipe, trained)
    if without_promise:
        return recipe, dict.fromkeys(sites)
    check_no_trial(file.parent, run)
    return recipe, sites


def _drawn(
    draws: Draws,
    part: PartFile,
    chosen: TextFilter,
    options: SynthesisOptions,
    on_records: Callable[[int], None],
) -> Iterator[Row]:
    """Yields the records, and keeps each batch on the disk.

    Raises:
        CloisterError: Too many texts were left out.
    """
    records = drawn = number = 0
    while records < options.count:
        if number < len(part.batches):
            prompt = draws.prompts[number % len(draws.prompts)].prompt
            texts = list(part.batches[number])
        else:
            prompt, texts = draws.batch(number)
            part.add(texts)
        number, drawn = number + 1, drawn + len(texts)
        for text in texts:
            whole = prompt.text + text if options.is_text else text.strip()
            if records < options.count and chosen.keeps(whole, prompt.label):
                records += 1
                yield row_of(prompt, whole, is_text=options.is_text)
        on_records(records)
        if records < options.count and drawn >= MOST_DRAWN * options.count:
            left = ", ".join(f"{n:,} {why}" for why, n in chosen.dropped.most_common())
            raise CloisterError(
                f"{records:,} of {options.count:,} records after {drawn:,} texts; left out: "
                f"{left}. Ask for fewer records, give more prompts, a larger --temperature or "
                "other lengths; remove the .part file then"
            )


def row_of(prompt: PublicPrompt, text: str, *, is_text: bool) -> Row:
    """Returns a record in the standard columns: a labelled text, a text, or a conversation."""
    if prompt.label is not None:
        return {"text": text, "label": prompt.label}
    if is_text:
        return {"text": text}
    turns: list[Any] = [
        {"role": "user", "content": prompt.text},
        {"role": "assistant", "content": text},
    ]
    return {"messages": turns}


def _prompt_words(
    file: Path | None, known: tuple[PublicPrompt, ...]
) -> dict[str, str | int | float]:
    if file is None:
        return {"prompts": "none: texts from their beginning"}
    labels = sorted({one.label for one in known if one.label is not None})
    of = f" with {len(labels)} labels" if labels else ""
    return {"prompts": f"{len(known):,} public ones of {file.name}{of}"}


def _public_file(recipe: Recipe | None) -> str:
    """Returns the name of the public file that the adapter was trained on too; empty: none."""
    if recipe is None or recipe.data.public is None or not recipe.public_steps:
        return ""
    return Path(recipe.data.public).name
