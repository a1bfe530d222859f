"""Loaded versions of tiny models, one of each task."""

from pathlib import Path

import pytest

from cloister.documents.encoder import open_encoder
from cloister.documents.index import build_index
from cloister.documents.sources import SourceText
from cloister.service.library import Library
from cloister.service.versions import Version, open_version
from cloister.tasks.config import TaskConfig
from tests.support.models import tiny_llama
from tests.support.released import exported

LENGTH = 12


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    task = TaskConfig(labels=("x", "y", "z"), max_length=LENGTH)
    return open_version(exported(tmp_path_factory.mktemp("labels"), bert, task), None, None)


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    task = TaskConfig(kind="multi-label-classification", labels=("x", "y", "z"), max_length=LENGTH)
    return open_version(exported(tmp_path_factory.mktemp("several"), bert, task), None, None)


@pytest.fixture(scope="session")
def scorer(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    task = TaskConfig(kind="scoring", score_range=(0.0, 3.0), score_step=1.0, max_length=LENGTH)
    return open_version(exported(tmp_path_factory.mktemp("scores"), bert, task), None, None)


@pytest.fixture(scope="session")
def recommender(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    folder = tmp_path_factory.mktemp("items")
    shelf = folder / "items.csv"
    shelf.write_text("item,text\na,fever\nb,cough and rash\nc,chest pain\nd,no headache\n")
    task = TaskConfig(kind="recommendation", items=str(shelf), max_length=LENGTH)
    return open_version(exported(folder / "adapter", bert, task), None, None)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    task = TaskConfig(kind="text-pairs", labels=("yes", "no"), max_length=LENGTH)
    return open_version(exported(tmp_path_factory.mktemp("pairs"), bert, task), None, None)


@pytest.fixture(scope="session")
def finder(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    passages = (("ward", "the patient has a fever"), ("home", "mild cough and no pain"))
    task = TaskConfig(kind="retrieval", passages=passages, max_length=LENGTH)
    return open_version(exported(tmp_path_factory.mktemp("finder"), bert, task), None, None)


@pytest.fixture(scope="session")
def tagger(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Version:
    task = TaskConfig(kind="token-classification", labels=("BODY", "SIGN"), max_length=LENGTH)
    return open_version(exported(tmp_path_factory.mktemp("tags"), bert, task), None, None)


@pytest.fixture(scope="session")
def chat(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Version:
    task = TaskConfig(kind="causal-lm", max_length=24)
    return open_version(exported(tmp_path_factory.mktemp("chat"), llama, task), None, None)


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A chat whose context has room for passages."""
    folder = tmp_path_factory.mktemp("talker")
    base = tiny_llama(folder / "base", positions=512)
    task = TaskConfig(kind="causal-lm", max_length=24)
    return open_version(exported(folder / "adapter", base, task), None, None)


@pytest.fixture(scope="session")
def library(bert: Path) -> Library:
    """Two documents; only questions in their very words are near enough."""
    texts = {"heart.txt": "chest pain at rest", "skin.txt": "itchy rash and no fever"}
    documents = [SourceText(name, "0" * 64, None, "", text) for name, text in texts.items()]
    encoder = open_encoder(bert)
    return Library(build_index(documents, encoder), encoder, 0.999)
