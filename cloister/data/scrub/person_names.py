"""Finds persons' names with a spaCy model and presidio: the extra `names`.

Rules find identifiers with a fixed form. Names have none: only a model of the language can tell
them from other words, and it misses some names and finds wrong ones. Nothing is fetched: the model
is on this machine, presidio uses the model's recognizer only, and tldextract, which presidio loads
and which would fetch a list of suffixes, is restricted to the list in its package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloister.data.scrub.find import Finder
from cloister.data.scrub.spans import Span
from cloister.errors import BadFileError, UsageError

# Least score of a name; presidio gives 0.85 to what spaCy finds.
LEAST_SCORE = 0.5
# spaCy refuses longer texts; they are read in pieces of at most this many characters.
PIECE = 100_000


def name_finder(model: str) -> Finder:
    """Loads a finder of persons' names.

    Args:
        model: The name of an installed spaCy model with entities, or its folder; it must be of the
            texts' language.

    Raises:
        UsageError: The extra `names` is not installed.
        BadFileError: The model is not on this machine.
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
            f"--names: {model} is not a spaCy model on this machine; install it, or name its folder"
        ) from error
    language: str = network.lang
    # Without an explicit engine, presidio would fetch a model.
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
