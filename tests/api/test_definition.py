"""A study in Python and a recipe in TOML are one value; contradictions are refused."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloister as cl
from cloister.errors import BadFileError, DataError, RecipeError, UsageError
from cloister.recipe import parse_recipe
from cloister.recipe.schema import SECTIONS
from tests.support.examples import tries

ROWS = [{"text": "chest pain", "label": "a"}, {"text": "itchy rash", "label": "b"}] * 4
TEST = [{"text": "no pain", "label": "a"}, {"text": "rash", "label": "b"}]

ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        "seed": st.integers(0, 2**31),
        "rounds": st.integers(3, 40),
        "task": st.sampled_from(["sequence-classification", {"max_length": 64}]),
        "privacy": st.one_of(
            st.builds(cl.Privacy, epsilon=st.floats(1, 9), delta=st.sampled_from([1e-5, 1e-6])),
            st.builds(cl.Privacy, noise_multiplier=st.floats(0.5, 4)),
            st.just({"enabled": False}),
        ),
        "strategy": st.sampled_from(["fedavg", "median", {"name": "fedadam", "momentum": 0.5}]),
        "lora": st.builds(dict, r=st.integers(1, 8), train=st.sampled_from(["both", "b"])),
        "training": st.builds(dict, local_steps=st.integers(1, 3), mode=st.just("local-steps")),
        "federation": st.just({"min_sites": 3, "evaluate_every": 2}),
        "machine": st.just({"physical_batch_tokens": 4096}),
        "tracking": st.just({"tensorboard": False}),
        "public_records": st.one_of(st.integers(300, 2000), st.just([400, 500, 600, 700])),
        "text": st.sampled_from(["question", "note"]),
        "data": st.sampled_from(["train.csv", Path("train.csv"), cl.partition("x.csv", sites=4)]),
        "test": st.just("test.csv"),
    },
).filter(lambda arguments: "data" not in arguments or "test" in arguments)

SECTIONS_OF_THEIR_OWN = [name for name in SECTIONS if name not in ("study", "data")]


@settings(deadline=None, max_examples=tries(60))
@given(ARGUMENTS)
def test_a_study_and_its_toml_are_one_value(arguments: dict[str, object]) -> None:
    study = cl.Study(**arguments)  # type: ignore[arg-type]
    text = study.to_toml()
    again = cl.Study.from_toml(text)
    assert again == study
    assert again.to_toml() == text
    assert again.recipe.digest() == study.recipe.digest()
    # And the other way: what the text says, given to `Study` section by section.
    recipe = parse_recipe(text)
    data, others = recipe.data, SECTIONS_OF_THEIR_OWN
    given_again = cl.Study(
        name=recipe.study.name,
        seed=recipe.study.seed,
        data=cl.partition(data.train, sites=data.sites, by=data.partition, alpha=data.alpha),
        test=data.test,
        public_records=data.public_records,
        text=data.text,
        **{name: getattr(recipe, name) for name in others},
    )
    assert given_again == study


@dataclass(frozen=True)
class Half(cl.Strategy):
    """A strategy of one's own with an option."""

    share: float = 0.5

    def aggregate(self, state: cl.ServerState, updates: Mapping[str, cl.Adapter]) -> cl.ServerState:
        return state


def test_a_strategy_of_one_s_own_is_named_in_the_recipe_with_its_options() -> None:
    study = cl.Study(strategy=Half(share=0.25))
    assert study.recipe.strategy.name.endswith("test_definition:Half")
    assert cl.Study.from_toml(study.to_toml()) == study
    digests = {
        cl.Study(strategy=strategy).recipe.digest()
        for strategy in (Half(), Half(share=0.25), "fedavg", Half)
    }
    assert len(digests) == 3  # the class stands for an object of its defaults
    with pytest.raises(UsageError, match="strategy"):
        cl.Study(strategy=object())  # type: ignore[arg-type]


def test_the_defaults_are_the_recipe_s() -> None:
    assert cl.Study().recipe == parse_recipe("").resolved()
    assert cl.Study().recipe.digest() == parse_recipe("").digest()
    assert cl.Study(data="a.csv", test="b.csv").recipe.study.name == "study"


def test_a_file_is_read_and_written(tmp_path: Path) -> None:
    study = cl.Study(rounds=3)
    assert study.save(tmp_path / "one") == study
    file = tmp_path / "one" / "study.toml"
    assert cl.Study.from_toml(file) == cl.Study.from_toml(str(file)) == study
    with pytest.raises(UsageError, match="not overwritten"):
        study.save(tmp_path / "one")
    for name in ("none.toml", "none", "runs/none"):
        with pytest.raises(BadFileError, match=rf"{name}: cannot be read"):
            cl.Study.from_toml(name)
    assert cl.Study.from_toml("") == cl.Study()
    assert cl.Study.from_toml("[privacy]") == cl.Study()
    with pytest.raises(BadFileError, match="the text is not valid TOML"):
        cl.Study.from_toml("[data\n")


def test_studies_of_equal_rows_in_memory_are_equal_and_go_to_files_and_back(tmp_path: Path) -> None:
    study = cl.Study(data=cl.partition(ROWS, sites=2), test=TEST)
    frames = cl.partition(pd.DataFrame(ROWS), sites=2)
    assert cl.Study(data=frames, test=pd.DataFrame(TEST)) == study
    assert cl.Study(data=cl.partition(ROWS[1:], sites=2), test=TEST) != study
    with pytest.raises(UsageError, match=r"train, test in memory.*study\.save\(folder\)"):
        study.to_toml()
    saved = study.save(tmp_path / "mine")
    assert saved == cl.Study.from_toml(tmp_path / "mine" / "study.toml")
    assert saved.recipe.data.train == str(tmp_path / "mine" / "data" / "train.jsonl")
    same = dataclasses.replace(saved.recipe, data=study.recipe.data)
    assert same == study.recipe
    assert (tmp_path / "mine" / "data").stat().st_mode & 0o077 == 0


def test_a_table_for_each_site_is_dealt_by_name() -> None:
    study = cl.Study(data={"west": ROWS[:2], "east": ROWS}, test=TEST)
    assert study.recipe.data.partition == "column"
    assert study.recipe.data.sites == 2
    assert [record.site for record in study.tables["train"]] == ["east"] * 8 + ["west"] * 2


def test_persons_are_read_where_the_study_protects_them() -> None:
    rows = [{**row, "patient": 7} for row in ROWS]
    dealt = cl.partition(rows, sites=2, by="person")
    study = cl.Study(data=dealt, test=TEST, person="patient", privacy=cl.Privacy(unit="person"))  # type: ignore[arg-type]
    assert {record.person for record in study.tables["train"]} == {"7"}
    assert {record.person for record in study.tables["test"]} == {None}
    with pytest.raises(RecipeError, match=r"data\.person"):
        cl.Study(data=dealt, test=TEST, privacy=cl.Privacy(unit="person"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no column 'patient'"):
        cl.Study(data=cl.partition(ROWS, sites=2), test=TEST, person="patient")


def test_an_alpha_deals_by_label_and_none_alike() -> None:
    assert cl.partition("x.csv", sites=5, alpha=0.3).fields["partition"] == "dirichlet"
    assert cl.partition("x.csv", sites=5).fields["partition"] == "iid"
    assert (
        cl.partition("x.csv", sites=5, by="quantity", alpha=1.0).fields["partition"] == "quantity"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"data": ROWS, "test": TEST}, UsageError, "one table given, without sites"),
        ({"data": pd.DataFrame(ROWS), "test": TEST}, UsageError, "cloister.partition"),
        ({"data": 5, "test": TEST}, UsageError, "data: int given; a file, a hub id, or a pandas"),
        ({"test": {"a": TEST}}, UsageError, "test: dict given"),
        ({"data": {"a": ROWS}}, RecipeError, "test: missing"),
        ({"data": {"a": ROWS}, "test": ROWS}, UsageError, "test: the training data, or"),
        ({"data": {"a": ROWS, "b": ROWS[:3]}, "test": ROWS[:3]}, UsageError, "or one site's, giv"),
        ({"data": {"a": "a.csv"}, "test": TEST}, UsageError, "a column that names their site"),
        ({"data": {"x" * 300: ROWS}, "test": TEST}, UsageError, "x… given as a site's name"),
        ({"name": ""}, RecipeError, "study.name: '' given"),
        ({"privacy": 8}, UsageError, r"privacy: 8 given; .*cloister\.Privacy"),
        ({"privacy": cl.Privacy}, UsageError, "privacy: <class"),
        ({"strategy": 3}, UsageError, "strategy: 3 given"),
        ({"data": {"a/b": ROWS}, "test": TEST}, UsageError, "'a/b' given as a site's name"),
        ({"data": {"a": ROWS}, "test": TEST, "label": "intent"}, DataError, "no column 'intent'"),
        (
            {"data": {"a": [*ROWS, {"text": "x", "label": "new"}]}, "test": TEST},
            DataError,
            "data has labels that are not the study's: new",
        ),
        ({"data": {}, "test": TEST}, RecipeError, "data.sites: 0 given"),
        ({"data": cl.partition({"a": ROWS}, sites=2), "test": TEST}, UsageError, "a dict of sites"),
        ({"lora": {"rank": 4}}, RecipeError, r"lora\.rank: unknown key"),
        ({"lora": {"r": 0}, "rounds": 0}, RecipeError, r"lora\.r: 0(.|\n)*num_rounds: 0 given"),
        ({"rounds": 2, "federation": {"num_rounds": 3}}, UsageError, "both give num_rounds"),
        ({"lora": 4}, UsageError, "lora: 4 given; a dict of the section's fields"),
        ({"strategy": "fedavgg"}, RecipeError, "strategy.name"),
        ({"task": "poetry"}, RecipeError, "task.kind"),
    ],
)
def test_what_cannot_be_meant_is_one_message(
    arguments: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        cl.Study(**arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, cl.CloisterError)


def test_numbers_of_numpy_are_those_of_python() -> None:
    study = cl.Study(
        rounds=np.int64(3),  # type: ignore[arg-type]
        privacy=cl.Privacy(epsilon=np.float32(2.5), delta=np.float64(1e-6)),  # type: ignore[arg-type]
        training={"local_steps": np.int32(2), "mode": "local-steps"},
        public_records=np.array([1000, 2000, 1000, 900]),  # type: ignore[arg-type]
    )
    wanted = cl.Study(
        rounds=3,
        privacy=cl.Privacy(epsilon=2.5, delta=1e-6),
        training={"local_steps": 2, "mode": "local-steps"},
        public_records=(1000, 2000, 1000, 900),
    )
    assert study == wanted
    assert study.to_toml() == wanted.to_toml()
    with pytest.raises(RecipeError, match=r"federation\.num_rounds: 2\.0 given"):
        cl.Study(rounds=np.float64(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        (cl.Privacy(epsilon=3), "epsilon=3.0, delta=1e-05 for one record"),
        (cl.Privacy(noise_multiplier=2), "noise_multiplier=2"),
        (cl.Privacy(enabled=False), "no privacy"),
    ],
)
def test_a_study_is_shown_in_one_line(privacy: object, said: str) -> None:
    shown = repr(cl.Study(rounds=2, privacy=privacy))
    for word in ("sequence-classification", "4 sites, 2 rounds of fedavg", said):
        assert word in shown
    assert "\n" not in shown
