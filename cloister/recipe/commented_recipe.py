"""Writes a commented recipe to start a study, for a task and the columns of a file."""

from __future__ import annotations

import json
from pathlib import Path

from cloister.data.guess import Guess
from cloister.data.records import POOLED
from cloister.data.roles import OWN
from cloister.data.synthetic_answers import HIGHEST
from cloister.recipe.defaults import TASK_DEFAULTS
from cloister.recipe.head_defaults import HEADS
from cloister.recipe.usual_scales import usual_scale
from cloister.tasks.config import TaskKind
from cloister.tasks.registry import BUILT_IN, usual_task
from cloister.tasks.score_scale import ScoreScale

# Records of a site if no file is given, and the largest batch; both as in the quickstart.
RECORDS_DECLARED, BATCH = 1200, 300
# A sample rate of 1/4, as in the quickstart: large batches average the noise, small rates cost less
# ε.
RATE = 4
SITES = 4
# Public models that a CPU can train, to start with; the user replaces them by the study's base.
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
MULTILINGUAL = "intfloat/multilingual-e5-small"
CAUSAL = "HuggingFaceTB/SmolLM2-135M-Instruct"

# Names of files that do not describe the study; their folder's name is used instead.
UNTELLING = frozenset({"train", "training", "data", "records"})

ROLES = {
    "text": "the column of texts",
    "text_b": "the column of the second text of each pair",
    "label": "the column of their classes",
    "labels": "the column of their labels, a list (in CSV: set label_separator)",
    "score": "the column of their scores",
    "items": "the column of what each person had, oldest first: a list of ids",
    "tokens": "the column of a sentence's words",
    "tags": "the column of their tags (O, B-…, I-…)",
    "messages": "the column of a conversation's turns (role, content)",
    "site": "the column that names the institution",
    "person": "the column that identifies persons; public sets need none",
}


def new_recipe(
    task: TaskKind, source: Path | None, found: Guess | None, test: Path | None = None
) -> str:
    """Returns the text of a commented recipe.

    Args:
        task: The task.
        source: The file of training records; None: the recipe asks for one.
        found: The file's probable kind and columns; None without a file.
        test: The file of public test records; None: the recipe asks for one.

    Returns:
        TOML with comments. Only files that were not given are missing.
    """
    sections = [_head(source), _study(source, task), _model(task, found), _task(task, found)]
    sections += [
        _data(task, source, found, test),
        _training(task, found),
        _privacy(task, found),
        _rounds(),
    ]
    return "\n".join(sections)


def kind_of_task(found: Guess) -> TaskKind | None:
    """Returns the task whose records a file probably has; None: no task fits."""
    return None if found.kind is None else usual_task(found.kind)


def _head(source: Path | None) -> str:
    guessed = f", guessed from {source.name}" if source is not None else ""
    return f"""\
# A federated study under differential privacy{guessed}. Read every line; correct what is wrong.
#
#   cloister plan THIS-FILE       what is promised to whom; trains nothing
#   cloister simulate THIS-FILE   runs the study on this machine (--dry-run: checks alone)
#
# Fields that are not here have defaults; docs/recipe.md lists all.
"""


def _study(source: Path | None, task: str) -> str:
    called = task if source is None else source.stem
    if source is not None and called.lower() in UNTELLING:
        called = source.absolute().parent.name or task
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in called)
    name = name.strip("-_")[:56] or "study"
    return f"""\
[study]
name = {_text(name)}
seed = 0                 # of the adapter's start and the partition; never of private noise
"""


def _model(task: str, found: Guess | None) -> str:
    if task == "causal-lm":
        base, why = CAUSAL, "any causal language model with safetensors weights"
    elif found is not None and found.is_spaceless:
        base, why = MULTILINGUAL, "the texts have no blanks between words: a multilingual encoder"
    else:
        base, why = ENCODER, f"English; for other languages {MULTILINGUAL}"
    return f"""\
[model]
base = {_text(base)}   # {why}
                         # a hub id or a local folder
"""


def _task(task: str, found: Guess | None) -> str:
    labels = (
        ""
        if task == "causal-lm"
        else _scale(found)
        if task == "scoring"
        else """\
# passages = "passages.jsonl"  # NEEDED: a PUBLIC file with columns id and text; the column
#                        # `label` of the data names the passage that answers
"""
        if task == "retrieval"
        else """\
items = "items.jsonl"    # PUBLIC: columns item and text; all parties need the same file
last_items = 10          # of a person's items, the last so many are read
"""
        if task == "recommendation"
        else """\
# labels = ["…", "…"]    # absent: those of the public test set, never of the private records
"""
    )
    longest = 512 if task == "causal-lm" else 128
    return f"""\
[task]
kind = {_text(task)}
{labels}max_length = {longest}         # in tokens; what is longer is cut
"""


def _scale(found: Guess | None) -> str:
    """Returns the lines on the scale of scores."""
    if found is None or found.scores is None:
        scale, why = ScoreScale(0, HIGHEST, 1), "That of the built-in records; state your own"
    else:
        scale, why = usual_scale(found.scores), "A usual one that fits the file; state your own"
    ends = f"[{scale.low:g}, {scale.high:g}]"
    step = f"score_step = {scale.step:g}" if scale.step is not None else "# score_step = 1"
    return f"""\
score_range = {ends}     # DECLARED: the lowest and the highest score; others are left out
                         # {why}
{step:<24} # between two grades; without it every number in the range is a score
"""


def _data(task: TaskKind, source: Path | None, found: Guess | None, test: Path | None) -> str:
    lines = ["[data]"]
    if source is None:
        lines.append(
            '# train = "train.jsonl"    # NEEDED: the private records (JSONL, CSV, Parquet)'
        )
    else:
        lines.append(f"train = {_text(str(source))}")
    if test is None:
        lines.append(
            '# test = "test.jsonl"      # NEEDED: a PUBLIC file with the same columns; scores on '
            "it\n#                          # are published. Or: --set data.test=test.jsonl"
        )
    else:
        lines.append(f"test = {_text(str(test))}   # PUBLIC: scores on it are published")
    roles = OWN[BUILT_IN[task].records]
    columns = found.columns if found is not None else {}
    for role in (*roles, "site", "person"):
        name = columns.get(role, role)
        if role in columns or role in roles:
            lines.append(f"{role} = {_text(name)}   # {ROLES[role]}")
        else:
            lines.append(f"# {role} = {_text(name)}   # {ROLES[role]}; none was found")
    lines += _dealing(found)
    return "\n".join(lines) + "\n"


def _dealing(found: Guess | None) -> list[str]:
    """Returns the lines on how records are dealt to sites, and on a site's declared number."""
    if found is not None and found.sites is not None:
        how = [
            f"sites = {found.sites}",
            'partition = "column"     # each institution has the records that name it',
        ]
    else:
        by_person = found is not None and found.persons is not None
        how = [
            f"sites = {SITES}                # simulated institutions",
            'partition = "person"     # each person is at one site'
            if by_person
            else 'partition = "iid"        # or dirichlet, quantity (both by data.alpha)',
        ]
    unit = "persons" if found is not None and found.persons is not None else "records"
    return [
        *how,
        f"public_records = {declared(found)}    # {unit} of a site, DECLARED: it sets the sample "
        "rate and becomes public.",
        "                         # Rounded from the file here; state what each site may publish",
    ]


def declared(found: Guess | None) -> int:
    """Returns a rounded number of units for each site, at most the file's average.

    Returns:
        The average with all digits but the first set to 0.
    """
    if found is None:
        return RECORDS_DECLARED
    units = found.persons if found.persons is not None else found.records
    average = max(1, units // (found.sites or SITES))
    digit = int("1" + "0" * (len(str(average)) - 1))
    return average // digit * digit


def _training(task: TaskKind, found: Guess | None) -> str:
    batch = max(1, min(BATCH, declared(found) // RATE))
    rate = (
        """\
# learning_rate is left out, as max_grad_norm below: both get what was found for this task, and
# those of a head alone (lora.train = "none") follow from its noise. State both, or none
"""
        if _has_rule(task)
        else """\
learning_rate = 1.0      # clipping bounds every step, so private training stands large rates
"""
    )
    return f"""\
[training]
expected_batch_size = {batch}    # over public_records: the sample rate. Larger averages more noise
{rate}"""


def _has_rule(task: TaskKind) -> bool:
    """Returns whether a recipe that states neither a rate nor a clip bound gets both by a rule."""
    return task in HEADS or task in TASK_DEFAULTS


def _privacy(task: TaskKind, found: Guess | None) -> str:
    has_persons = found is not None and found.persons is not None
    unit = (
        'unit = "person"          # hides a person with all records; "record" hides one record'
        if has_persons
        else 'unit = "record"          # "person" hides a person with all records (data.person)'
    )
    if found is not None and not has_persons and found.most_rows > 1:
        unit += f"\nmax_rows_per_record = {found.most_rows}  # a record and its copies; ε stays"
    clip = 8.0 if BUILT_IN[task].records in POOLED else 1.0
    bound = (
        "# max_grad_norm clips each gradient; noise grows with it. It is left out, see above"
        if _has_rule(task)
        else f"max_grad_norm = {clip}      # clips each gradient; noise grows with it"
    )
    return f"""\
[privacy]
epsilon = 8.0            # of each site, over all rounds; smaller is more private
delta = 1e-5             # below 1/(10 · public_records)
{unit}
{bound}
"""


def _rounds() -> str:
    return """\
[federation]
num_rounds = 30
"""


def _text(value: str) -> str:
    """Quotes a TOML string; JSON's escapes are valid in TOML."""
    return json.dumps(value, ensure_ascii=False)
