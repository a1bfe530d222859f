"""Synthetic records have the model's ε and say so; a planted canary tells noise from none."""

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from cloister.cli.main import run
from cloister.errors import (
    BadFileError,
    CloisterError,
    DataError,
    LedgerError,
    RefusedError,
    UsageError,
)
from cloister.evidence.began import BEGAN, Began, FormerSite
from cloister.evidence.fingerprint import adapter_files, adapter_sha256
from cloister.export.compress.writing import compress_model
from cloister.export.croissant import CONFORMS_TO, CONTEXT, Publication, croissant
from cloister.export.synthetic_card import promise_words
from cloister.export.synthetic_facts import SyntheticFacts, facts_file, read_facts
from cloister.export.text_filters import TextFilter
from cloister.ledger.chain import Head
from cloister.ledger.stated import of_plan, of_plan_alone, shown
from cloister.privacy import adversaries
from cloister.privacy.units import Unit
from cloister.recipe import parse_recipe, read_run_recipe
from cloister.server.run_directory import RunDirectory
from cloister.simulation.certificates import certify_run
from cloister.simulation.plans import plans_of
from cloister.simulation.run import simulate
from cloister.simulation.tuning.tuning_file import TuningFile, write_tuning
from cloister.synthesis import part_file
from cloister.synthesis.draws import Draws
from cloister.synthesis.model_promises import site_promises
from cloister.synthesis.part_file import PartFile
from cloister.synthesis.public_prompts import PublicPrompt, read_prompts
from cloister.synthesis.writing import SynthesisOptions, row_of, synthesize
from cloister.tasks.config import TaskConfig
from tests.support.entropy import repeat_rounds
from tests.support.models import tiny_llama
from tests.support.released import exported

# Eight of the tiny vocabulary's words in an order that nothing suggests.
SECRET = "severe itchy swollen headache monday fever rash knee"
# The fingerprint of an adapter that no certificate names.
ADAPTER = "f" * 64
USUAL = "the patient has a mild rash since monday"


def chat(asked: str, answer: str) -> str:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}) + "\n"


def study(folder: Path, copies: int, *more: str) -> Path:
    """A finished chat study whose private records have a canary, so many times."""
    folder.mkdir(parents=True)
    usual = [chat(f"rash {'fever ' * (n % 3 + 1)}", USUAL) for n in range(24 - copies)]
    (folder / "train.jsonl").write_text("".join([chat("the code", SECRET)] * copies + usual))
    (folder / "test.jsonl").write_text(chat("knee", "swollen knee"))
    recipe = parse_recipe(
        "",
        [
            "study.name=codes",
            f"model.base='{base_of(folder / 'base')}'",
            "task.kind=causal-lm",
            "task.max_length=24",
            f"data.train='{folder / 'train.jsonl'}'",
            f"data.test='{folder / 'test.jsonl'}'",
            "data.sites=1",
            "data.partition=iid",
            "data.public_records=24",
            "training.expected_batch_size=24",
            "training.mode=local-steps",
            "training.optimizer=adamw",
            "training.schedule=constant",
            "training.learning_rate=0.02",
            "lora.train=both",
            "lora.top_layers=0",
            'lora.target_modules=["all-linear"]',
            "federation.num_rounds=1",
            "federation.evaluate_every=1",
            "tracking.tensorboard=false",
            *more,
        ],
    )
    place = RunDirectory.create(folder / "run", recipe)
    simulate(recipe, place)
    return place.path


def base_of(folder: Path) -> Path:
    """A tiny Llama whose logits are far enough apart for a text to be remembered."""
    model = LlamaForCausalLM.from_pretrained(tiny_llama(folder))
    with torch.no_grad():
        model.lm_head.weight.mul_(40.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def same_noise() -> Iterator[None]:
    """The models are the same in each run: by chance one in 27 had half of its texts dropped."""
    with pytest.MonkeyPatch.context() as patch:
        repeat_rounds(patch)
        yield


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One canary, at ε = 1."""
    folder = tmp_path_factory.mktemp("private") / "study"
    return study(folder, 1, "privacy.epsilon=1", "training.local_steps=20")


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mutant: twenty copies of the canary, and no noise."""
    folder = tmp_path_factory.mktemp("leaky") / "study"
    return study(
        folder, 20, "privacy.enabled=false", "training.local_steps=40", "federation.num_rounds=2"
    )


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "the code"}\n{"prompt": "rash fever"}\n')
    return file


def options(count: int = 12, **more: object) -> SynthesisOptions:
    return SynthesisOptions(count=count, **({"most_tokens": 12, "keeps_duplicates": True} | more))  # type: ignore[arg-type]


def answers(file: Path) -> list[str]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["messages"][1]["content"] for row in rows]


def test_a_canary_is_reproduced_without_noise_and_not_at_a_small_epsilon(
    private: Path, leaky: Path, tmp_path: Path
) -> None:
    """At ε = 1 and δ = 1e-5 one canary changes a probability p to at most e·p + 1e-5: as likely as
    (1/20)^8, it is never drawn. The mutant draws it in more than half of the texts."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "the code"}\n')
    drawn = options(40)
    held = synthesize(private, tmp_path / "held.jsonl", drawn, prompts=file)
    told = synthesize(leaky, tmp_path / "told.jsonl", drawn, prompts=file, without_promise=True)
    found = {one.file: sum(SECRET in text for text in answers(one.file)) for one in (held, told)}
    assert found[held.file] == 0
    assert found[told.file] > 20
    assert "ε = ∞" in told.card.read_text(encoding="utf-8")
    assert held.facts.largest is not None
    assert "ε = ∞" not in held.card.read_text(encoding="utf-8")


def test_the_card_states_the_promise_of_the_ledger(
    private: Path, prompts: Path, tmp_path: Path
) -> None:
    done = synthesize(private, tmp_path / "s.jsonl", options(), prompts=prompts)
    recipe = read_run_recipe(private / "recipe.toml")
    plan = plans_of(recipe, ("site-0",))["site-0"]
    assert done.facts.promises == {"site-0": of_plan(plan)}
    assert 0.95 < of_plan(plan).epsilon <= 1.0
    card = done.card.read_text(encoding="utf-8")
    for words in (
        str(of_plan(plan)),
        "post-processing",
        f"base: `{Path(recipe.model.base).name}`",  # of a folder, not where it is
        recipe.model.sha256 or "SHA-256",
        "private records: those of site-0",
        "temperature: 1.0",
        "2 public ones of prompts.jsonl",
    ):
        assert words in card
    assert read_facts(done.file) == done.facts
    assert done.facts.records == len(answers(done.file)) == 12
    assert done.facts.columns == ("messages",)


def test_of_a_model_with_shared_noise_everything_states_both_epsilons(
    prompts: Path, tmp_path: Path
) -> None:
    """That against the coordinator, and that against all other sites together."""
    more = ("data.sites=3", "data.public_records=8", "training.expected_batch_size=8")
    more += ("training.mode=gradient-rounds", "training.optimizer=sgd", "privacy.noise=shared")
    place = study(tmp_path / "study", 1, *more)
    done = synthesize(place, tmp_path / "s.jsonl", options(2), prompts=prompts)
    recipe = read_run_recipe(place / "recipe.toml")
    (plan,) = set(plans_of(recipe, ("a", "b", "c")).values())
    promise, alone = of_plan(plan), of_plan_alone(plan)
    assert alone is not None
    assert alone.epsilon > promise.epsilon
    assert set(done.facts.promises.values()) == {promise}
    assert done.facts.alone == dict.fromkeys(done.facts.promises, alone)
    assert read_facts(done.file) == done.facts
    card = done.card.read_text(encoding="utf-8")
    both = f"{promise}. The sites shared the noise. If all others work together: at most {alone}"
    assert f"Promised: at each site at most {both}.\n" in card
    assert f"| site-0 | {promise} | {alone} |" in card
    assert both in json.loads(done.metadata.read_text(encoding="utf-8"))["description"]
    own = (place / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"together, with or without the coordinator | {shown(alone.epsilon, 3)} for" in own


def test_a_model_without_a_promise_is_refused(
    private: Path, leaky: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(RefusedError, match=r"without privacy at site-0 \(ε = ∞\)"):
        synthesize(leaky, out, options(), prompts=prompts)
    alone = tmp_path / "adapter"
    shutil.copytree(private / "adapter", alone)
    with pytest.raises(RefusedError, match="no certificate, so nothing is known"):
        synthesize(alone, out, options(), prompts=prompts)
    bare = tmp_path / "bare"
    shutil.copytree(private, bare, ignore=shutil.ignore_patterns("ledgers"))
    with pytest.raises(RefusedError, match="no certificate of site-0"):
        synthesize(bare / "adapter", out, options(), prompts=prompts)
    assert list(tmp_path.glob("out*")) == []
    done = synthesize(alone, out, options(4), prompts=prompts, without_promise=True)
    assert "ε = ∞" in done.card.read_text(encoding="utf-8")
    assert done.facts.largest is None


def test_a_ledger_of_another_study_is_no_promise(private: Path, tmp_path: Path) -> None:
    recipe = read_run_recipe(private / "recipe.toml")
    other = replace(recipe, study=replace(recipe.study, name="other"))
    with pytest.raises(LedgerError, match="no round of it was charged"):
        site_promises(private, other, ADAPTER)
    broken = tmp_path / "run"
    shutil.copytree(private, broken)
    (broken / "certificates").mkdir(exist_ok=True)
    (broken / "certificates" / "east.certificate.json").write_text("{}")
    with pytest.raises(LedgerError, match="not a certificate"):
        site_promises(broken, recipe, ADAPTER)


def test_a_run_that_began_with_another_one_has_the_promises_of_both(
    private: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    shutil.copytree(private, place)
    recipe = read_run_recipe(place / "recipe.toml")
    (own,) = site_promises(place, recipe, ADAPTER).values()
    assert own is not None
    head = Head(3, "0" * 64)
    epsilon, former = own.promise.epsilon, replace(own.promise, epsilon=2.0)

    def began(**sites: FormerSite | None) -> dict[str, float | None]:
        said = Began(run="first", study="1" * 64, adapter="2" * 64, rounds=1, sites=sites)
        (place / BEGAN).parent.mkdir(exist_ok=True)
        (place / BEGAN).write_text(json.dumps(said.to_json()))
        found = site_promises(place, recipe, ADAPTER)
        return {site: None if one is None else one.promise.epsilon for site, one in found.items()}

    # A site that is no longer there keeps its promise; one with another ledger gets the sum.
    gone = FormerSite(promise=former, head=head, key="a" * 64)
    assert began(east=gone, west=None) == {"east": 2.0, "site-0": epsilon, "west": None}
    assert began(**{"site-0": gone}) == {"site-0": 2.0 + epsilon}
    assert began(**{"site-0": None}) == {"site-0": None}


def test_who_took_part_is_known_from_every_round_alone(private: Path, tmp_path: Path) -> None:
    """A registry's version has certificates and no figures; a damaged run lacks some."""
    recipe = read_run_recipe(private / "recipe.toml")
    done = certify_run(RunDirectory.reopen(private))
    own = adapter_sha256(adapter_files(private / "adapter"))
    place = tmp_path / "version"
    shutil.copytree(private, place, ignore=shutil.ignore_patterns("metrics.jsonl", "ledgers"))
    assert site_promises(place, recipe, own) == {}
    certificate = json.loads(done.sites["site-0"].read_text())["certificate"]
    (place / "certificates" / "site-0.certificate.json").write_text(json.dumps(certificate))
    found = site_promises(place, recipe, own)
    assert found["site-0"] is not None
    assert list(found.values()).count(None) == 1
    shutil.copy(private / "metrics.jsonl", place)
    assert list(site_promises(place, recipe, own)) == ["site-0"]
    with pytest.raises(LedgerError, match="about another adapter"):
        site_promises(place, recipe, ADAPTER)
    started = replace(recipe, study=replace(recipe.study, start="0" * 64, former="1" * 64))
    with pytest.raises(LedgerError):  # the certificate is of the study without a start
        site_promises(place, started, own)


def test_a_site_whose_certificate_of_this_run_is_missing_is_not_known(
    private: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    shutil.copytree(private, place, ignore=shutil.ignore_patterns("ledgers", "certificates"))
    recipe = read_run_recipe(place / "recipe.toml")
    (own,) = site_promises(private, recipe, ADAPTER).values()
    assert own is not None
    former = FormerSite(promise=own.promise, head=Head(3, "0" * 64), key=None)
    said = Began(run="first", study="1" * 64, adapter="2" * 64, rounds=1, sites={"site-0": former})
    (place / BEGAN).parent.mkdir(exist_ok=True)
    (place / BEGAN).write_text(json.dumps(said.to_json()))
    assert site_promises(place, recipe, ADAPTER) == {"site-0": None}
    (place / BEGAN).unlink()
    started = replace(recipe, study=replace(recipe.study, start="0" * 64, former="1" * 64))
    assert None in site_promises(place, started, ADAPTER).values()


def test_a_trial_of_a_private_search_has_the_search_s_cost(
    private: Path, prompts: Path, tmp_path: Path
) -> None:
    place = tmp_path / "search" / "trial-001_seed-0"
    shutil.copytree(private, place)
    for budget in (None, 30.0):
        write_tuning(place.parent, TuningFile(declared={"budget": budget}))
        if budget is None:
            synthesize(place, tmp_path / "free.jsonl", options(2), prompts=prompts)
            continue
        with pytest.raises(RefusedError, match="its ε is the search's budget, 30"):
            synthesize(place, tmp_path / "out.jsonl", options(2), prompts=prompts)
        done = synthesize(
            place, tmp_path / "out.jsonl", options(2), prompts=prompts, without_promise=True
        )
        assert done.facts.largest is None


def test_the_joint_promise_is_true_at_every_site() -> None:
    facts = facts_of()
    one = facts.promises["a"]
    assert one is not None
    other = replace(one, epsilon=one.epsilon / 2, delta=1e-4, adversaries=("coordinator",))
    joint = replace(facts, promises={"a": one, "b": other}).largest
    assert joint is not None
    assert (joint.epsilon, joint.delta, joint.adversaries) == (one.epsilon, 1e-4, ("coordinator",))
    person = replace(one, unit=Unit.PERSON)
    assert replace(facts, promises={"a": one, "b": person}).largest is None


@pytest.mark.parametrize(
    ("field", "value"), [("records", "many"), ("study", 3), ("dropped", {"empty": "x"})]
)
def test_facts_of_another_type_are_one_message(tmp_path: Path, field: str, value: object) -> None:
    records = tmp_path / "notes.jsonl"
    records.write_text("")
    facts_file(records).write_text(json.dumps(facts_of().to_json() | {field: value}))
    with pytest.raises(BadFileError, match="cannot be read"):
        read_facts(records)


def test_of_a_full_disk_is_said_where_the_drawn_texts_are_kept(
    private: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: PartFile, texts: list[str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PartFile, "add", full)
    with pytest.raises(BadFileError, match=r"No space left.*kept in s\.jsonl\.part: make room"):
        synthesize(private, tmp_path / "s.jsonl", options(4), prompts=prompts)


def test_an_interrupted_set_goes_on_as_if_it_had_not_been(
    private: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = synthesize(private, tmp_path / "whole.jsonl", options(6), prompts=prompts)
    drawn = Draws.batch
    for place in (0, 1):
        out = tmp_path / f"{place}.jsonl"

        def ends(self: Draws, number: int, place: int = place) -> tuple[PublicPrompt, list[str]]:
            if number == place:
                raise KeyboardInterrupt
            return drawn(self, number)

        monkeypatch.setattr(Draws, "batch", ends)
        with pytest.raises(KeyboardInterrupt):
            synthesize(private, out, options(6), prompts=prompts)
        assert not out.exists()
        with out.with_name(f"{out.name}.part").open("ab") as file:
            file.write(b'["the pat')  # a line that a crash cut off
        with pytest.raises(UsageError, match="other options"):
            synthesize(private, out, options(6, seed=1), prompts=prompts)
        monkeypatch.setattr(Draws, "batch", drawn)
        again = synthesize(private, out, options(6), prompts=prompts)
        assert again.facts.sha256 == whole.facts.sha256
        assert again.facts.dropped == whole.facts.dropped
        assert not list(tmp_path.glob("*.part"))
    with pytest.raises(UsageError, match="exists already"):
        synthesize(private, whole.file, options(6), prompts=prompts)


@pytest.mark.parametrize("rows", ['["a"]', "{", '{"a": 1}\nno', '{"a": 1}\n"b"', '{"a": 1}\n[1]'])
def test_a_damaged_part_is_one_message(tmp_path: Path, rows: str) -> None:
    (tmp_path / "out.jsonl.part").write_text(f"{rows}\n")
    with (
        pytest.raises(CloisterError, match=r"\.part: (damaged|an unfinished set)"),
        part_file.opened_part(tmp_path / "out.jsonl", {"a": 1}),
    ):
        pass


def test_another_seed_gives_other_texts_and_labels_are_dealt_evenly(
    private: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "rash", "label": "skin"}, {"prompt": "knee", "label": "bone"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for seed in (0, 1):
        done = synthesize(
            private,
            tmp_path / f"{seed}.jsonl",
            options(10, seed=seed),
            prompts=file,
        )
        lines = done.file.read_text(encoding="utf-8").splitlines()
        found.append([json.loads(line) for line in lines])
        assert done.facts.columns == ("text", "label")
        labels = [row["label"] for row in found[-1]]
        assert abs(labels.count("skin") - labels.count("bone")) <= 5
    assert found[0] != found[1]


def test_texts_are_drawn_from_their_beginning(private: Path, tmp_path: Path) -> None:
    done = synthesize(
        private, tmp_path / "t.jsonl", options(3, is_text=True, keeps_duplicates=False)
    )
    rows = [json.loads(line) for line in done.file.read_text(encoding="utf-8").splitlines()]
    assert [list(row) for row in rows] == [["text"]] * 3
    assert len({row["text"].casefold() for row in rows}) == 3  # no text twice
    with pytest.raises(UsageError, match="--prompts: missing"):
        synthesize(private, tmp_path / "u.jsonl", options())


def test_filters_leave_out_and_count() -> None:
    chosen = TextFilter(3, 10, keeps_duplicates=False)
    given = ["", " ", "ab", "abc", "ABC ", "abc  d", "abc d", "x" * 11]
    assert [text for text in given if chosen.keeps(text, None)] == ["abc", "abc  d"]
    assert chosen.keeps("abc", "a label")  # another record
    assert chosen.dropped == {"empty": 2, "too short": 1, "drawn twice": 2, "too long": 1}
    assert TextFilter(1, 9, keeps_duplicates=True).keeps("a", None)


def test_a_set_that_cannot_be_reached_ends_in_one_message(
    private: Path, prompts: Path, tmp_path: Path
) -> None:
    # Twelve tokens never have so many characters, so no draw is kept.
    never = options(6, fewest_characters=5000)
    with pytest.raises(CloisterError, match=r"^0 of 6 records after 6\d texts; .*too short"):
        synthesize(private, tmp_path / "never.jsonl", never, prompts=prompts)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", 0),
        ("count", 10**9),
        ("most_tokens", 0),
        ("fewest_characters", 0),
        ("most_characters", 0),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
    ],
)
def test_options_out_of_bounds_are_refused(field: str, value: float) -> None:
    with pytest.raises(UsageError, match="given; "):
        options(**{field: value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prompt in it"),
        ('{"promt": "a"}', r"row 1: no column 'prompt' \(found: promt\)"),
        ('{"prompt": ""}', "prompt is not a text"),
        ('{"prompt": 3}', "prompt is not a text"),
        ('{"prompt": "a", "label": 3}', "label is not a text"),
        ('{"prompt": "a", "label": "b"}\n{"prompt": "c"}', "make them alike"),
        ("no json", "no valid JSON"),
    ],
)
def test_prompts_that_cannot_be_used_are_one_message(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "p.jsonl").write_text(text + "\n")
    with pytest.raises(DataError, match=message) as told:
        read_prompts(tmp_path / "p.jsonl", is_text=False)
    assert str(told.value).startswith("--prompts: ")


def test_other_tasks_and_long_prompts_are_refused(
    private: Path, prompts: Path, bert: Path, tmp_path: Path
) -> None:
    labelled = exported(tmp_path / "adapter", bert, TaskConfig(labels=("x", "y"), max_length=24))
    with pytest.raises(UsageError, match="writes no text"):
        synthesize(labelled, tmp_path / "a.jsonl", options(), prompts=prompts)
    with pytest.raises(UsageError, match="more than the base's 64 positions"):
        synthesize(private, tmp_path / "a.jsonl", options(most_tokens=64), prompts=prompts)
    with pytest.raises(UsageError, match=r"a new \.jsonl file"):
        synthesize(private, tmp_path / "a.csv", options(), prompts=prompts)


def facts_of(**more: object) -> SyntheticFacts:
    promise = of_plan(plans_of(parse_recipe("", ["privacy.epsilon=2"]), ("a",))["a"])
    known: dict[str, object] = {
        "file": "notes.jsonl",
        "sha256": "0" * 64,
        "records": 3,
        "columns": ("messages",),
        "study": "codes",
        "digest": "1" * 64,
        "base": "a/base",
        "base_sha256": "2" * 64,
        "adapter_sha256": "3" * 64,
        "public": "",
        "promises": {"a": promise, "b": promise},
        "sampling": {},
        "dropped": {},
        "created": "2026-01-31",
    }
    return SyntheticFacts(**(known | more))  # type: ignore[arg-type]


def test_against_all_others_the_largest_epsilon_counts_also_where_a_site_added_all_noise() -> None:
    """As where one site's earlier study shared its noise, and the other site is new."""
    facts = facts_of()
    one = facts.promises["a"]
    assert one is not None
    alone = replace(one, epsilon=one.epsilon / 2, delta=1e-4, adversaries=adversaries.ALL_OTHERS)
    mixed = replace(facts, alone={"b": alone}).largest_alone
    assert mixed is not None
    assert (mixed.epsilon, mixed.delta) == (one.epsilon, 1e-4)
    assert mixed.adversaries == adversaries.ALL_OTHERS
    assert facts.largest_alone is None
    assert replace(facts, promises={"a": one, "b": None}, alone={"a": alone}).largest_alone is None


def test_one_unknown_promise_makes_the_whole_unknown() -> None:
    facts = facts_of()
    assert facts.largest is not None
    assert replace(facts, promises={**facts.promises, "c": None}).largest is None
    assert replace(facts, promises={}).largest is None
    infinite = replace(facts.largest, epsilon=float("inf"))
    assert replace(facts, promises={"a": infinite}).largest is None
    assert "ε = ∞" in promise_words(replace(facts, promises={}))


# What the specification of Croissant 1.0 requires of a data set, and of its parts.
REQUIRED = {
    "sc:Dataset": {
        "@context",
        "@type",
        "conformsTo",
        "description",
        "license",
        "name",
        "url",
        "creator",
        "datePublished",
        "distribution",
        "recordSet",
    },
    "cr:FileObject": {"@id", "name", "contentUrl", "encodingFormat", "sha256"},
    "cr:RecordSet": {"@id", "field"},
    "cr:Field": {"@id", "name", "dataType", "source"},
}


@pytest.mark.parametrize("columns", [("messages",), ("text",), ("text", "label")])
def test_croissant_has_every_required_property(columns: tuple[str, ...]) -> None:
    document = croissant(facts_of(columns=columns), Publication(), "notes.README.md")
    names = {entry.partition(":")[0] for entry in CONTEXT} | {"cr", "sc"}

    def check(node: object) -> None:
        if isinstance(node, list):
            for one in node:
                check(one)
        if not isinstance(node, dict):
            return
        kind = node.get("@type", "")
        needed = REQUIRED.get(str(kind), set())
        if "subField" in node:  # its parts have type and source
            needed = needed - {"dataType", "source"}
        assert needed <= node.keys(), (kind, needed - node.keys())
        for key, value in node.items():
            if key != "@context":
                check(value)

    check(document)
    assert document["conformsTo"] == CONFORMS_TO
    date.fromisoformat(document["datePublished"])
    assert {"cr", "sc", "dct", "recordSet", "field", "source", "extract"} <= names
    ids = {one["@id"] for one in document["distribution"]}
    fields = document["recordSet"][0]["field"]
    leaves = [leaf for one in fields for leaf in one.get("subField", [one])]
    assert [one["source"]["fileObject"]["@id"] in ids for one in leaves] == [True] * len(leaves)
    assert [one["name"] for one in fields] == list(columns)
    assert json.loads(json.dumps(document)) == document
    stated = croissant(
        facts_of(), Publication("CC0-1.0", "the clinics", "https://example.org"), "c"
    )
    assert (stated["license"], stated["url"]) == ("CC0-1.0", "https://example.org")
    assert stated["creator"]["name"] == "the clinics"


def test_rows_have_the_standard_columns() -> None:
    asked = PublicPrompt("hello")
    assert row_of(asked, "hi", is_text=False) == {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
        ]
    }
    assert row_of(PublicPrompt("a", "b"), "c", is_text=True) == {"text": "c", "label": "b"}
    assert row_of(PublicPrompt(""), "c", is_text=True) == {"text": "c"}


def test_a_student_learns_from_certified_records_and_from_no_others(
    private: Path, leaky: Path, prompts: Path, tmp_path: Path
) -> None:
    made = synthesize(private, tmp_path / "made.jsonl", options(6), prompts=prompts)
    done = compress_model(private, tmp_path / "small", drop_layers=1, epochs=1, public=made.file)
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "made.jsonl, synthetic records of the study codes" in card
    assert promise_words(made.facts) in card
    with made.file.open("a") as file:
        file.write(chat("knee", "rash"))
    with pytest.raises(RefusedError, match="was changed since"):
        compress_model(private, tmp_path / "two", drop_layers=1, public=made.file)
    facts_file(made.file).write_text("{}")
    with pytest.raises(BadFileError, match="cannot be read"):
        compress_model(private, tmp_path / "two", drop_layers=1, public=made.file)
    open_one = synthesize(
        leaky, tmp_path / "open.jsonl", options(4), prompts=prompts, without_promise=True
    )
    with pytest.raises(RefusedError, match="not public"):
        compress_model(private, tmp_path / "two", drop_layers=1, public=open_one.file)


def test_the_command_says_what_was_written(
    private: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cli.jsonl"
    asked = ["synthesize", str(private), "--count", "6", "--prompts", str(prompts)]
    asked += ["--most-tokens", "12", "--out", str(out)]
    assert run([*asked, "--json", "--license", "CC0-1.0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["facts"]["records"] == 6
    assert json.loads(Path(document["metadata"]).read_text())["license"] == "CC0-1.0"
    assert run(asked) == 2
    assert "exists already" in capsys.readouterr().err
