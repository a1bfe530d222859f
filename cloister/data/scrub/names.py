"""Persons' names, found by a spaCy model through presidio: the extra `names`.

Rules find what has a form. A name has none: only a model of a language tells it from other words,
and it misses some and takes other words for names. Nothing is fetched: the model lies on this
machine, presidio is given no recognizer but the model's own, and tldextract, which presidio loads
and which would look for a list of suffixes on the network, is held to the list that it carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloister.data.scrub.find import Finder
from cloister.data.scrub.spans import Span
from cloister.errors import BadFileError, UsageError

# The least score of a name; what spaCy finds has 0.85 in presidio.
LEAST_SCORE = 0.5
# spaCy refuses a longer text; one is read in pieces of at most so many characters.
PIECE = 100_000


def name_finder(model: str) -> Finder:
    """Loads what finds persons' names.

    Args:
        model: The name of an installed spaCy model with entities, or its folder; its language is
            the texts'.

    Raises:
        UsageError: The extra `names` is not installed.
        BadFileError: There is no such model on this machine.
    """
    try:
        import spacy
        import tldextract
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    except ImportError as error:
        raise UsageError(
            "--names: presidio and spaCy are not installed; pip install 'cloister[names]'"
        ) from error
    offline = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    tldextract.tldextract.TLD_EXTRACTOR = offline
    try:
        network = spacy.load(model)
    except (OSError, ValueError) as error:
        raise BadFileError(
            f"--names: {model} is no spaCy model on this machine; install one, or name its folder"
        ) from error
    language: str = network.lang
    # An engine without a network of its own would fetch one.
    engine = SpacyNlpEngine(
        models=[{"lang_code": language, "model_name": Path(model).name}],
        ner_model_configuration=NerModelConfiguration(labels_to_ignore=[]),
    )
    engine.nlp = {language: network}
    names = SpacyRecognizer(supported_language=language, supported_entities=["PERSON"])
    registry = RecognizerRegistry(recognizers=[names], supported_languages=[language])
    analyzer: Any = AnalyzerEngine(
        registry=registry, nlp_engine=engine, supported_languages=[language]
    )

    def found(text: str) -> Iterator[Span]:
        for start in range(0, len(text), PIECE):
            piece = text[start : start + PIECE]
            for name in analyzer.analyze(
                piece, language=language, entities=["PERSON"], score_threshold=LEAST_SCORE
            ):
                value = " ".join(piece[name.start : name.end].split()).casefold()
                yield Span(start + name.start, start + name.end, "NAME", value)

    return found
