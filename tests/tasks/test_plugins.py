"""Plug-in tasks are stated in the recipe, accepted by name, imported late, and guarded."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.client.acceptance import accept
from cloister.client.policy_file import parse_policy
from cloister.client.site_file import SiteFile, read_site
from cloister.data.records import TextRecord
from cloister.deployment.site.records import UNDECLARED, read_records
from cloister.errors import PluginError, RecipeError, RefusedError, UsageError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.privacy.units import Unit
from cloister.recipe import (
    Recipe,
    parse_document,
    parse_recipe,
    read_recipe,
    read_run_recipe,
    sent_document,
)
from cloister.tasks import registry
from cloister.tasks.build import build_task, labels_of, record_kind
from cloister.tasks.config import TaskConfig
from cloister.tasks.plugins import named
from cloister.tasks.task import Batch
from cloister.tasks.text_task import TextTask
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.shapes import one_by_one
from cloister.training.units import UNENCODED, UnitExamples, encode_units
from cloister.training.workspace import open_workspace
from tests.support.models import word_tokenizer
from tests.support.plugins import Site, packages

__all__ = ["packages"]  # a fixture

SOURCE = (Path(__file__).parents[2] / "examples" / "custom_task.py").read_text()
ENTRIES = {"cloister.tasks": {"multi-label": "multi:MultiLabel"}}
KIND = "multi:MultiLabel"
LABELS = '["a", "b", "c"]'
TRAP = "raise SystemExit('imported')\n"


def recipe(*assignments: str, kind: str = KIND) -> Recipe:
    usual = [f"task.kind={kind}", f"task.labels={LABELS}", "model.sha256=" + "ab" * 32]
    return parse_recipe("", [*usual, "lora.target_modules=['query']", *assignments])


def site(folder: Path, tasks: str = KIND, records: str = KIND) -> SiteFile:
    path = folder / "site.toml"
    path.write_text(
        '[site]\nname = "ward"\ndata = "r.jsonl"\npublic_records = 1200\nledger = "r.ledger"\n'
        f'[records]\ntask = "{records}"\nlabels = {LABELS}\n'
        f"[budget]\nepsilon = 20.0\ndelta = 2e-5\n"
        f'[accept]\ntasks = ["{tasks}"]\nbase_sha256 = ["{"ab" * 32}"]\n'
    )
    return read_site(path)


def sent(packages: Site, version: str = "1.0") -> str:
    """A coordinator's document; the code is gone afterwards, for a trap."""
    packages.package("multi", SOURCE, version, ENTRIES)
    text = sent_document(recipe())
    sys.modules.pop("multi")
    return text


def refused(text: str, file: SiteFile) -> str:
    with pytest.raises(RefusedError) as caught:
        accept(parse_document(text), file)
    assert "multi" not in sys.modules
    return str(caught.value)


# --- the recipe -------------------------------------------------------------------------------


def test_a_plug_in_s_package_version_and_options_are_in_the_document(packages: Site) -> None:
    packages.package("multi", SOURCE, "1.2", ENTRIES)
    for kind in (KIND, "multi-label"):
        table = json.loads(sent_document(recipe(kind=kind)))["task"]
        assert table["kind"] == kind
        assert table["plugin"] == {
            "distribution": "multi-dist",
            "version": "1.2",
            "records": "text",
            "options": {"threshold": 0.5},
        }
    assert "plugin" not in json.loads(sent_document(Recipe()))["task"]


def test_each_of_them_changes_the_digest(packages: Site) -> None:
    digests = set()
    for version in ("1.0", "1.1"):
        packages.package("multi", SOURCE, version, ENTRIES)
        digests |= {recipe().digest(), recipe(kind="multi-label").digest()}
        text = f'[task]\nkind = "{KIND}"\n[task.plugin.options]\nthreshold = 1\n'
        digests.add(parse_recipe(text).digest())
    packages.module("loose", SOURCE)
    digests.add(recipe(kind="loose:MultiLabel").digest())
    assert len(digests) == 7


def test_a_run_s_recipe_reads_back_and_imports_nothing(packages: Site, tmp_path: Path) -> None:
    packages.package("multi", SOURCE, "1.0", ENTRIES)
    made, file = recipe(), tmp_path / "recipe.toml"
    file.write_text(made.to_toml())
    assert read_recipe(file).digest() == made.digest()
    packages.package("multi", TRAP, "1.0", ENTRIES)
    begun = read_run_recipe(file)
    assert begun == made.resolved()
    assert begun.digest() == made.digest()
    with pytest.raises(UsageError, match="cannot be imported: SystemExit"):
        build_task(begun.task, begun.task.labels, word_tokenizer())


def test_a_run_goes_on_with_the_version_that_began_it_alone(packages: Site, tmp_path: Path) -> None:
    packages.package("multi", SOURCE, "1.0", ENTRIES)
    file = tmp_path / "recipe.toml"
    file.write_text(recipe().to_toml())
    packages.package("multi", SOURCE, "1.1", ENTRIES)
    with pytest.raises(RecipeError, match=r"task\.plugin\.version: .*'1\.0' of multi:Mul.*'1\.1'"):
        read_recipe(file)
    with pytest.raises(UsageError, match=r"task\.plugin\.version"):
        build_task(read_run_recipe(file).task, ("a", "b"), word_tokenizer())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('kind = "sequence-clasification"', "task.kind: 'sequence-clasification' given; \""),
        ('kind = "no_such:Thing"', "No module named 'no_such'"),
        ('kind = "../../x"', "task.kind: '../../x' given"),
        ('kind = "multi:MultiLabel\\u202e"', "task.kind: "),
        ('kind = "json:JSONDecoder"', "has no method encode"),
        ('kind = "multi:dataclass"', "a class is needed"),
        ('kind = "__main__:Mine"', "class of a script or notebook"),
        (f'kind = "{KIND}"\nplugin = 3', "task.plugin: 3 given"),
        (f'kind = "{KIND}"\nplugin = {{options = 3}}', "task.plugin.options: 3 given"),
        (f'kind = "{KIND}"\nplugin = {{options = {{thresh = 1}}}}', "did you mean threshold?"),
        (f'kind = "{KIND}"\nplugin = {{options = {{threshold = "x"}}}}', "a number needed"),
        (f'kind = "{KIND}"\nplugin = {{options = {{threshold = nan}}}}', "is not a number"),
        (f'kind = "{KIND}"\nplugin = {{code = "x"}}', "task.plugin.code: unknown key"),
        (f'kind = "{KIND}"\nplugin = {{version = "9"}}', "task.plugin.version: "),
        ('kind = "causal-lm"\nplugin = {options = {}}', "task.plugin"),
    ],
)
def test_what_is_no_plug_in_is_refused_by_its_key(packages: Site, text: str, word: str) -> None:
    packages.package("multi", SOURCE, "1.0", ENTRIES)
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"[task]\n{text}\n")
    assert word in str(caught.value)


# --- a site -----------------------------------------------------------------------------------


def test_a_site_accepts_what_its_own_file_names_in_the_installed_version(
    packages: Site, tmp_path: Path
) -> None:
    text = sent(packages)
    packages.package("multi", TRAP, "1.0", ENTRIES)  # accepting imports nothing
    received = parse_document(text)
    assert received.digest() == hashlib.sha256(text.encode()).hexdigest()
    plan = accept(received, site(tmp_path))
    assert plan.public_records == 1200
    assert "multi" not in sys.modules


@pytest.mark.parametrize("named", ["sequence-classification", "other:Task"])
def test_a_plug_in_that_the_file_does_not_name_is_refused_and_not_looked_up(
    packages: Site, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, file = sent(packages), site(tmp_path, tasks=named)
    packages.package("multi", TRAP, "1.0", ENTRIES)

    def looked(*args: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr("cloister.tasks.plugins.origin", looked)
    assert "accept.tasks: " in refused(text, file)


def test_another_version_or_none_is_refused_with_both_named(packages: Site, tmp_path: Path) -> None:
    text, file = sent(packages, "1.0"), site(tmp_path)
    packages.package("multi", TRAP, "1.1", ENTRIES)
    said = refused(text, file)
    assert "of multi-dist 1.0" in said
    assert "multi-dist 1.1 is installed at this site" in said
    for old in packages.folder.glob("*.dist-info/*"):
        old.unlink()
    for old in packages.folder.glob("*.dist-info"):
        old.rmdir()
    assert "no package is installed at this site" in refused(text, file)


def test_a_module_that_is_part_of_no_package_is_no_site_s_task(
    packages: Site, tmp_path: Path
) -> None:
    packages.module("multi", SOURCE)
    text = sent_document(recipe())
    sys.modules.pop("multi")
    assert "is not in a package" in refused(text, site(tmp_path))


def test_a_study_of_other_records_is_refused(packages: Site, tmp_path: Path) -> None:
    text = sent(packages)
    said = refused(text, site(tmp_path, records="sequence-classification"))
    assert f"the study is {KIND}" in said


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("kind",), "../../etc", "task.kind"),
        (("kind",), "multi.MultiLabel", ""),  # of the form of an entry point: another name
        (("kind",), "x" * 300, "task.kind"),
        (("kind",), "os:system(1)", "task.kind"),
        (("kind",), "causal-lm", "task.plugin: given, but the task causal-lm is built in"),
        (("kind",), 3, "task.plugin"),
        (("plugin",), None, "task.kind"),
        (("plugin",), [], "task.plugin"),
        (("plugin", "version"), None, "task.plugin.version"),
        (("plugin", "version"), "v" * 300, "task.plugin.version"),
        (("plugin", "records"), "messages", "task.plugin.records"),
        (("plugin", "options"), None, "task.plugin.options: missing"),
        (("plugin", "options"), {"x": "y" * 100_000}, "task.plugin.options"),
        (("plugin", "code"), "import os", "task.plugin.code: unknown key"),
    ],
)
def test_a_hostile_document_is_read_without_an_import_or_refused(
    packages: Site, tmp_path: Path, path: tuple[str, ...], value: object, word: str
) -> None:
    fields = json.loads(sent(packages))
    packages.package("multi", TRAP, "1.0", ENTRIES)
    table = fields["task"]
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with pytest.raises((RecipeError, RefusedError)) as caught:
        accept(parse_document(text), site(tmp_path))
    assert word in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert "multi" not in sys.modules


def test_an_unknown_kind_without_its_facts_is_refused_as_before() -> None:
    text = sent_document(Recipe()).replace("sequence-classification", "future-task")
    with pytest.raises(RecipeError, match=r"task\.kind: 'future-task' given"):
        parse_document(text)


@pytest.mark.parametrize("name", ["sequence-clasification", "a b", "../x", "x:y:z", ""])
def test_a_site_s_file_names_tasks_that_there_are(name: str) -> None:
    with pytest.raises(RecipeError, match=r"accept\.tasks: "):
        parse_policy(
            f'[budget]\nepsilon = 1.0\ndelta = 1e-5\n[accept]\ntasks = ["{name}"]\n'
            f'base_sha256 = ["{"ab" * 32}"]\n'
        )


def test_a_site_s_records_are_read_by_the_plug_in_s_own_labels(
    packages: Site, tmp_path: Path
) -> None:
    packages.package("multi", SOURCE, "1.0", ENTRIES)
    rows = [{"text": "x", "label": label} for label in ("a", "a|b", "b|rare", "c|a|b")]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_records(site(tmp_path))
    assert [record.label for record in found.records] == ["a", "a|b", "c|a|b"]  # type: ignore[union-attr]
    assert found.reasons == {UNDECLARED: 1}
    assert labels_of(found.records, KIND) == ("a", "b", "c")
    assert record_kind(KIND) == "text"


# --- what it does wrong -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Odd(TextTask):
    """Raises and returns what a test wants."""

    def target(self, record: TextRecord) -> int:
        if record.text == "secret":
            raise ValueError(record.text)
        return self.labels.index(record.label)

    def record_losses(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        return logits.float().logsumexp(dim=1)


def bound(monkeypatch: pytest.MonkeyPatch, **methods: object) -> TaskConfig:
    for name, method in methods.items():
        monkeypatch.setattr(Odd, name, method)
    kind, plugin = named(Odd)
    return TaskConfig(kind=kind, plugin=plugin, max_length=16)


RECORDS = [TextRecord("chest pain", "a"), TextRecord("rash", "b")]


def raising(*args: object) -> None:
    raise ValueError("patient 17")


@pytest.mark.parametrize(
    ("methods", "word"),
    [
        ({"record_losses": raising}, "failed in record_losses: ValueError;"),
        ({"record_losses": lambda *a: 3.0}, "float returned; one loss a row is needed"),
        ({"record_losses": lambda s, x, b: x.sum()}, r"\(\) returned; one loss a row is needed"),
        ({"record_losses": lambda s, x, b: x.double().sum(dim=1)}, "float64 returned; float32"),
        ({"collate": raising}, "failed in collate: ValueError;"),
        ({"collate": lambda *a: None}, "NoneType returned; a Batch is needed"),
        ({"meter": raising}, "failed in meter: ValueError;"),
        ({"scores": lambda s, x, b: {"x": "y"}}, "failed in meter.add: AttributeError;"),
        ({"primary_metric": "f1"}, "no f1 among its scores"),
    ],
)
def test_what_a_task_does_wrong_ends_by_its_name_and_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch, methods: dict[str, object], word: str
) -> None:
    task = build_task(bound(monkeypatch, **methods), ("a", "b"), word_tokenizer())
    examples = [task.encode(record) for record in RECORDS]

    def learn_and_score() -> None:
        batch = task.collate(examples)
        task.record_losses(torch.zeros(2, 2), batch)
        meter = task.meter()
        meter.add(torch.zeros(2, 2), batch)
        meter.result()

    with pytest.raises(PluginError, match=word) as caught:
        learn_and_score()
    said = str(caught.value)
    assert said.startswith(f"task.kind: {__name__}:Odd failed in ")
    assert "patient" not in said


def test_no_record_of_a_site_stops_a_plug_in_nor_is_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = build_task(bound(monkeypatch), ("a", "b"), word_tokenizer())
    records = [*RECORDS, TextRecord("secret", "a"), TextRecord("rash", "rare")]
    found = encode_units(records, task, Unit.RECORD, 1)
    assert [len(unit) for unit in found.units] == [1, 1, 0, 0]
    assert found.left_out[UNENCODED] == 1
    assert "secret" not in str(found.problems)
    monkeypatch.setattr(Odd, "encode", lambda self, record: "no example")
    assert encode_units(RECORDS, task, Unit.RECORD, 1).left_out[UNENCODED] == 2


def test_a_record_that_makes_an_encoder_exit_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exits(self: Odd, record: TextRecord) -> int:
        if record.text == "rash":
            raise SystemExit(record.text)
        return 0

    task = build_task(bound(monkeypatch, target=exits), ("a", "b"), word_tokenizer())
    assert encode_units(RECORDS, task, Unit.RECORD, 1).left_out == {UNENCODED: 1}


@pytest.mark.parametrize("target", [float("nan"), 0.5, "a", (0.5, 1.0), None])
def test_a_record_whose_target_is_no_class_is_left_out(
    monkeypatch: pytest.MonkeyPatch, target: object
) -> None:
    task = build_task(
        bound(monkeypatch, target=lambda self, record: target), ("a", "b"), word_tokenizer()
    )
    assert encode_units(RECORDS, task, Unit.RECORD, 1).left_out == {UNENCODED: 2}


def test_whole_numbers_of_other_libraries_are_python_s(monkeypatch: pytest.MonkeyPatch) -> None:
    task = build_task(
        bound(monkeypatch, target=lambda self, record: np.int64(1)), ("a", "b"), word_tokenizer()
    )
    assert type(task.encode(RECORDS[0]).target) is int


@pytest.mark.parametrize("returned", [raising, lambda *a: 3.0])
def test_a_record_on_which_a_plug_in_s_loss_fails_counts_as_zero_and_cuts_no_round_off(
    monkeypatch: pytest.MonkeyPatch, bert: Path, returned: Callable[..., object]
) -> None:
    usual = Odd.record_losses

    def losses(self: Odd, logits: torch.Tensor, batch: Batch) -> object:
        is_hit = any(example.target == 1 for example in batch.examples)
        return returned() if is_hit else usual(self, logits, batch)

    config = bound(monkeypatch, record_losses=losses)
    lora = LoraConfig(train="both", top_layers=0)
    work = open_workspace(ModelConfig(base=str(bert)), lora, config, ("a", "b"), 0)
    units = encode_units([*RECORDS, RECORDS[0]], work.task, Unit.RECORD, 1).units
    assert [unit[0].target for unit in units] == [0, 1, 0]

    def summed(chosen: Sequence[UnitExamples]) -> tuple[torch.Tensor, ...]:
        with per_record_hooks(work.network):
            sums = clipped_gradient_sum(work.network, work.task, chosen, 1.0, one_by_one(16))
            return sums.tensors

    with_it, without = summed(units), summed([units[0], (), units[2]])
    assert any(one.any() for one in with_it)
    assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))
    monkeypatch.setattr(Odd, "record_losses", raising)  # not by a record: it is told
    with pytest.raises(PluginError, match="failed in record_losses"):
        summed(units)


def test_a_class_of_a_notebook_works_in_this_process_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Local(Odd):
        pass

    kind, plugin = named(Local)
    config = TaskConfig(kind=kind, plugin=plugin)
    assert kind == "__main__:Local"
    assert build_task(config, ("a", "b"), word_tokenizer()).kind == kind
    monkeypatch.setattr("cloister.plugins._HERE", {})
    with pytest.raises(UsageError, match="put it into a module"):
        build_task(config, ("a", "b"), word_tokenizer())


# --- the registry -----------------------------------------------------------------------------


def test_a_new_task_is_one_file(tmp_path: Path) -> None:
    folder = Path(registry.__file__).parent
    for file in folder.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    lines = ["TASK = {", '    "kind": "r",', '    "records": "text",', "}", ""]
    (tmp_path / "regression.py").write_text("\n".join(lines))
    found = registry.find_tasks(tmp_path)
    assert found.keys() - registry.BUILT_IN.keys() == {"r"}
    assert found["r"].module == "cloister.tasks.regression"
    (tmp_path / "again.py").write_text('TASK = {"kind": "r", "records": "text"}\n')
    with pytest.raises(ValueError, match="two tasks have the kind r"):
        registry.find_tasks(tmp_path)
