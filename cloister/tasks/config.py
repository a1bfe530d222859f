"""The `[task]` section of a recipe: its fields, their bounds and their checks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from cloister.bounds import (
    LARGE,
    MOST_NAME,
    MOST_PATH,
    SMALL,
    Between,
    ByName,
    Items,
    Text,
    listed,
    shortened,
)
from cloister.data.public_file import is_sha256
from cloister.data.records import RecordKind
from cloister.errors import UsageError
from cloister.fields import ELSEWHERE, LATER, called, check_bounds, whole_table
from cloister.plugins import is_plugin_name
from cloister.tasks.registry import BUILT_IN
from cloister.tasks.score_scale import ScoreScale

if TYPE_CHECKING:
    TaskKind = str
else:
    TaskKind = Literal[tuple(BUILT_IN)]
# A built-in kind or a plug-in's name; `TaskConfig` checks that it is one of the two.
TaskName = Annotated[str, Text(MOST_NAME, least=1)]

# The 2,000 three-character categories of ICD-10, twice over; a head has one row for each.
MOST_LABELS = 5000
LONGEST_LABEL = 256
# Three times the longest template that we found on the hub (about 20,000 characters).
LONGEST_TEMPLATE = 65_536
# A question with a few examples: a sixteenth of the longest template.
LONGEST_PROMPT = 4096
# The place of the text in `task.prompt`.
SLOT = "{text}"
# The context of today's long language models.
LONGEST_RECORD = 131_072
# A class a thousand times rarer than another is the most that weights can make up for: beyond it a
# record's gradient is clipped whatever its weight.
LEAST_WEIGHT, MOST_WEIGHT = 1e-3, 1e3
WEIGHTED = ("sequence-classification", "token-classification", "multi-label-classification")
ClassWeight = tuple[
    Annotated[str, Text(LONGEST_LABEL, lines=True, least=1)],
    Annotated[float, Between(LEAST_WEIGHT, MOST_WEIGHT)],
]
# What a head reads of two texts that are encoded separately (`models.apart`).
Comparison = Literal["vectors", "cosine"]
Score = Annotated[float, Between(-LARGE, LARGE)]
# A passage of retrieval: half a page, more than today's encoders read of it (512 tokens).
LONGEST_PASSAGE = 4096
Passage = tuple[
    Annotated[str, Text(LONGEST_LABEL, lines=True, least=1)],
    Annotated[str, Text(LONGEST_PASSAGE, lines=True, least=1)],
]
# Characters of all passages: an adapter's facts state them, at most six bytes a character in JSON,
# and are read up to 1 MiB (`evidence.fingerprint.MOST_TOLD`).
MOST_PASSAGE_TEXT = 2**17
# Temperature of cosines: the value that Gao et al. 2021 (arXiv:2104.08821, appendix D) chose for
# sentence encoders.
TEMPERATURE = 0.05
# A person's last items that are read as one text: ten titles fill most of 128 tokens.
LAST_ITEMS, MOST_LAST = 10, 1000
# Largest options of a plug-in: a few numbers and words.
MOST_OPTIONS = 2**16


@dataclass(frozen=True, kw_only=True)
class TaskPlugin:
    """The code that a plug-in's `task.kind` stands for, as plain data; nothing is imported.

    The table `[task.plugin]` of a document. It is there for plug-ins alone, and all of it is
    covered by the study's digest.

    Attributes:
        distribution: The installed package that contains it; empty: none, and then no site accepts
            it.
        version: That package's version; without a package, `sha256:` and the hash of the module's
            file.
        records: Which records it reads.
        options: Canonical JSON of its own options with the values in force.
    """

    distribution: Annotated[str, Text(MOST_NAME)] = ""
    version: Annotated[str, Text(MOST_NAME)] = ""
    records: Literal["text", "tokens"] = "text"
    options: Annotated[str, Text(MOST_OPTIONS, lines=True)] = "{}"

    def __post_init__(self) -> None:
        check_bounds(self)

    def table(self) -> dict[str, object]:
        """Returns the facts as the table `[task.plugin]` of a document."""
        return {**whole_table(self), "options": json.loads(self.options)}


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The `[task]` section of a recipe.

    Attributes:
        kind: The task: a built-in one, or a plug-in's name.
        labels: Class names (classification), or entity types without their B-/I- prefix (token
            classification). Empty: taken from the public test and validation sets and written to
            the run's `recipe.toml`, which only a simulation may do; a deployment declares them.
            They are never taken from private records, because that would reveal those labels.
        max_length: Longest record in tokens. A longer one is cut at its end, or at the side that
            `truncation_side` names.
        chat_template: Jinja template of a conversation. Absent: the tokenizer's own, or a plain
            built-in one if it has none.
        prompt: For sequence classification: text around each record's text, with `{text}` once in
            the record's place, as in `"Review: {text} Sentiment:"`. If both are too long, the text
            is cut and never the prompt. A decoder's last token then answers a question. Absent:
            the text alone.
        truncation_side: For conversations and raw texts longer than `max_length`: `right` cuts the
            end; `left` cuts the beginning, which keeps the last turn. Absent: `right`.
        loss: For conversations: `dpo` learns from pairs (columns `prompt`, `chosen`, `rejected`) to
            prefer the chosen reply, compared with the base without its adapter (Rafailov et al.
            2023, arXiv:2305.18290). Absent: the loss of the next tokens; for pairs, of the chosen
            reply.
        dpo_beta: β of `dpo`: a larger value keeps the adapter closer to the base. Absent: 0.1, as
            in the paper.
        plugin: If `kind` is a plug-in's name: the code that it stands for.
        class_weights: Factors for the loss, by label or entity type, as in `{ cardiology = 2.0 }`;
            1 for labels that are not named. With several labels, the factor applies to each label's
            part of the loss; with entities, to each word's part. Weights are declared, never
            counted on private records. Each record's gradient is clipped afterwards, so ε does not
            change. Absent: all factors are 1.
        score_range: For scoring, required: the lowest and the highest score, `[low, high]`.
        score_step: For scoring: the distance between two grades, such as 1 for whole marks. Absent:
            every number in the range is a possible score.
        passages: For retrieval, required: the public passages by id, as in `{ lost = "A card that
            is lost …" }`. Your own recipe may name a file with columns `id` and `text` instead; its
            content is copied into the run's recipe and the document for the sites. The ids are the
            labels.
        negatives: For retrieval: the wrong answers in the loss. Absent: `public`, all other public
            passages. `in-batch` is refused, because it couples records.
        temperature: For retrieval: similarities are divided by it in the loss. Absent: 0.05.
        encoder: For text pairs: `cross` reads both texts as one sequence; `bi` reads each text by
            itself, so that a text's vector does not depend on the other text. Absent: `cross`.
        compare: For `bi`: what the head reads: `vectors`, both vectors and their distance in each
            coordinate, or `cosine`, only their cosine. Absent: `vectors`.
        items: For recommendation, required: a PUBLIC file of the items, with columns `item` and
            `text`, or the generator `synthetic:shops` (with Chinese texts: `synthetic:shops-zh`).
            Each party has a copy.
        items_sha256: SHA-256 of that file; the study's digest covers it. Absent: computed from the
            file.
        last_items: For recommendation: how many of a person's last items are read. Absent: 10.
    """

    kind: TaskKind | TaskName = field(
        default="sequence-classification", metadata=called("task name type task_type")
    )
    labels: Annotated[
        tuple[Annotated[str, Text(LONGEST_LABEL, lines=True, least=1)], ...], Items(MOST_LABELS)
    ] = ()
    # MiniLM was trained on 128 tokens; most notes and intents are shorter.
    max_length: Annotated[int, Between(2, LONGEST_RECORD)] = field(
        default=128, metadata=called("max_len max_seq_length max_tokens")
    )
    chat_template: Annotated[str, Text(LONGEST_TEMPLATE, lines=True)] | None = None
    prompt: Annotated[str, Text(LONGEST_PROMPT, lines=True)] | None = field(
        default=None, metadata={**LATER, **called("prompt_template instruction")}
    )
    truncation_side: Literal["left", "right"] | None = field(
        default=None, metadata={**LATER, **called("truncation truncate_side")}
    )
    loss: Literal["dpo"] | None = field(default=None, metadata=LATER)
    dpo_beta: Annotated[float, Between(SMALL, LARGE)] | None = field(
        default=None, metadata={**LATER, **called("beta")}
    )
    plugin: TaskPlugin | None = field(default=None, metadata=ELSEWHERE)
    class_weights: Annotated[tuple[ClassWeight, ...], ByName(MOST_LABELS)] | None = field(
        default=None, metadata={**LATER, **called("class_weight weights label_weights")}
    )
    score_range: Annotated[tuple[Score, ...], Items(2)] | None = field(
        default=None, metadata={**LATER, **called("range marks min_max")}
    )
    score_step: Annotated[float, Between(SMALL, LARGE)] | None = field(
        default=None, metadata={**LATER, **called("step")}
    )
    passages: Annotated[tuple[Passage, ...], ByName(MOST_LABELS)] | None = field(
        default=None, metadata={**LATER, **called("documents corpus answers")}
    )
    negatives: Annotated[str, Text(MOST_NAME)] | None = field(default=None, metadata=LATER)
    temperature: Annotated[float, Between(1e-3, 10.0)] | None = field(
        default=None, metadata={**LATER, **called("tau")}
    )
    encoder: Literal["cross", "bi"] | None = field(default=None, metadata=LATER)
    compare: Comparison | None = field(default=None, metadata={**LATER, **called("similarity")})
    items: Annotated[str, Text(MOST_PATH, least=1)] | None = field(
        default=None, metadata={**LATER, **called("catalogue catalog items_file item_texts")}
    )
    items_sha256: Annotated[str, Text(64)] | None = field(default=None, metadata=LATER)
    last_items: Annotated[int, Between(1, MOST_LAST)] | None = field(
        default=None, metadata={**LATER, **called("history window max_history last_k")}
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.plugin is None and self.kind not in BUILT_IN:
            raise UsageError(f"kind: {shortened(self.kind)} given; {known_kinds()} needed")
        if self.plugin is not None and (self.kind in BUILT_IN or not is_plugin_name(self.kind)):
            raise UsageError(
                f"kind: {shortened(self.kind)} given; needed is a built-in task or a plug-in's name"
            )
        if len(set(self.labels)) != len(self.labels):
            raise UsageError("labels: duplicate label; name each once")
        if self.loss is not None and self.kind != "causal-lm":
            raise UsageError(f"loss: {self.loss} given; only causal-lm has it: leave it out")
        if self.dpo_beta is not None and self.loss != "dpo":
            raise UsageError('dpo_beta: given without loss = "dpo", which needs it; leave it out')
        if self.prompt is not None and self.prompt.count(SLOT) != 1:
            raise UsageError(
                f"prompt: {self.prompt.count(SLOT)} times {SLOT} in it; it is needed once, where "
                "the text goes"
            )
        if self.prompt is not None and self.kind != "sequence-classification":
            raise UsageError(
                f"prompt: given for {shortened(self.kind)}; only sequence-classification has it, "
                "because other tasks do not read one text, and a plug-in reads texts in its own "
                "way: leave it out"
            )

        if self.truncation_side is not None and self.kind != "causal-lm":
            raise UsageError(
                f"truncation_side: given for {shortened(self.kind)}; only causal-lm has it, other "
                "tasks cut a record at its end: leave it out"
            )
        if self.encoder is not None and self.kind != "text-pairs":
            raise UsageError(
                f"encoder: given for {shortened(self.kind)}; only text-pairs has it: leave it out"
            )
        if self.compare is not None and self.encoder != "bi":
            raise UsageError(
                f'compare: {self.compare} given without encoder = "bi"; set that, or leave it out'
            )
        self._check_weights()
        self._check_scale()
        self._check_passages()
        self._check_items()

    def _check_weights(self) -> None:
        if self.class_weights is None:
            return
        if self.kind not in WEIGHTED:
            raise UsageError(
                f"class_weights: given for {shortened(self.kind)}; only {', '.join(WEIGHTED)} have "
                "classes: leave it out"
            )
        if not self.class_weights:
            raise UsageError("class_weights: an empty table given; leave it out")
        unknown = sorted(dict(self.class_weights).keys() - set(self.labels))
        if self.labels and unknown:
            raise UsageError(
                f"class_weights: {listed(unknown)} given; labels has {listed(self.labels)}"
            )

    def _check_scale(self) -> None:
        if self.kind != "scoring":
            for name in ("score_range", "score_step"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{name}: given for {shortened(self.kind)}; only scoring has it: leave it "
                        "out"
                    )
            return
        if self.labels:
            raise UsageError("labels: given for scoring, whose texts have a score; leave them out")
        if self.score_range is None or len(self.score_range) != 2:
            raise UsageError(
                f"score_range: {'none' if self.score_range is None else len(self.score_range)} "
                "given; scoring needs two numbers, [lowest, highest]"
            )
        if (fault := ScoreScale.of(self.score_range, self.score_step).fault()) is not None:
            raise UsageError(fault)

    def _check_passages(self) -> None:
        if self.negatives == "in-batch":
            raise UsageError(
                "negatives: in-batch given; a record's loss would depend on the other records of "
                "its batch, so clipping would not bound one record's influence, and ε would be "
                'false: leave it out, which means "public", all other public passages'
            )
        if self.kind != "retrieval":
            for name in ("passages", "negatives", "temperature"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{name}: given for {shortened(self.kind)}; only retrieval has it: leave "
                        "it out"
                    )
            return
        if self.negatives not in (None, "public"):
            raise UsageError(f'negatives: {shortened(self.negatives)} given; "public" is needed')
        found = dict(self.passages or ())
        if len(found) < 2:
            raise UsageError(
                f"passages: {len(found)} given; retrieval needs at least 2 public ones, by id, or "
                "in your own recipe a file of them with columns id and text"
            )
        if (size := sum(map(len, found.values()))) > MOST_PASSAGE_TEXT:
            raise UsageError(
                f"passages: {size:,} characters given; at most {MOST_PASSAGE_TEXT:,} in all are "
                "read: shorten them, or train on a part (cloister index searches any number)"
            )
        if blank := [name for name, text in found.items() if not (name.strip() and text.strip())]:
            raise UsageError(f"passages: {shortened(blank[0])}: its id or its text is empty")
        if self.labels and set(self.labels) != set(found):
            raise UsageError(
                "labels: differ from the ids of passages, which are the labels; leave them out"
            )
        object.__setattr__(self, "labels", tuple(sorted(found)))

    def _check_items(self) -> None:
        if self.kind != "recommendation":
            for name in ("items", "items_sha256", "last_items"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{name}: given for {shortened(self.kind)}; only recommendation has it: "
                        "leave it out"
                    )
            return
        if self.labels:
            raise UsageError(
                "labels: given for recommendation, whose outputs are the items of task.items; "
                "leave them out"
            )
        if self.items is None:
            raise UsageError(
                "items: none given; recommendation needs a public file of the items, with columns "
                "item and text"
            )
        if self.items_sha256 is not None and not is_sha256(self.items_sha256):
            raise UsageError("items_sha256: 64 lower-case hexadecimal digits are needed")

    @property
    def records(self) -> RecordKind:
        """Kind of records that the task reads; for a plug-in, as the recipe states it."""
        return self.plugin.records if self.plugin is not None else BUILT_IN[self.kind].records

    def table(self) -> dict[str, object]:
        """Returns the section as a document has it: every field, and `plugin` only for plug-ins."""
        stated = whole_table(self)
        return stated if self.plugin is None else {**stated, "plugin": self.plugin.table()}


def known_kinds() -> str:
    """Returns the possible values of `task.kind`, for messages."""
    return " or ".join(f'"{kind}"' for kind in BUILT_IN) + ", or a plug-in's module:Class,"
