"""Croissant metadata of a file of synthetic records: JSON-LD that data-set search engines read.

The format is Croissant 1.0 (MLCommons, http://mlcommons.org/croissant/1.0): a schema.org data set
with its files (`distribution`) and the fields of its records (`recordSet`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister.export.synthetic_card import NO_LICENSE, promise_words
from cloister.export.synthetic_facts import SyntheticFacts

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
# The context that the specification gives (its appendix), which names every term that is used.
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# What each standard column holds.
_COLUMNS = {
    "text": "The text, as the model wrote it.",
    "label": "The label of the prompt that the text answers.",
}
_VOTED = {"text": "The text.", "label": "The label of the private records that voted for it."}
_TURNS = {"role": "Who speaks: user or assistant.", "content": "What is said."}


@dataclass(frozen=True)
class Publication:
    """What only the publisher of a file knows.

    Attributes:
        license: A license's URL or name; empty: none is stated.
        creator: Who publishes it; empty: the study.
        url: The page of the data set; empty: the card beside the file.
    """

    license: str = ""
    creator: str = ""
    url: str = ""


def croissant(facts: SyntheticFacts, publication: Publication, card: str) -> dict[str, Any]:
    """Returns the metadata.

    Args:
        facts: The facts of the file.
        publication: What its publisher stated.
        card: The name of its card.

    Returns:
        JSON-LD with every property that Croissant 1.0 requires.
    """
    return {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": facts.file.rpartition(".")[0] or facts.file,
        "description": (
            f"{facts.records:,} synthetic records {_made(facts)}. Privacy: {promise_words(facts)}."
        ),
        "license": publication.license or NO_LICENSE,
        "url": publication.url or card,
        "creator": {
            "@type": "sc:Organization",
            "name": publication.creator or f"the study {facts.study}",
        },
        "datePublished": facts.created,
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "records",
                "name": facts.file,
                "contentUrl": facts.file,
                "encodingFormat": "application/jsonlines",
                "sha256": facts.sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "default",
                "name": "default",
                "field": [_field(column, facts) for column in facts.columns],
            }
        ],
    }


def _made(facts: SyntheticFacts) -> str:
    if facts.voted:
        return f"that private records of the study {facts.study} voted for"
    return f"from a language model of the study {facts.study} ({facts.base})"


def _field(column: str, facts: SyntheticFacts) -> dict[str, Any]:
    """Returns a column's field; turns are a repeated field with two parts."""
    if column == "messages":
        parts = [
            {
                "@type": "cr:Field",
                "@id": f"default/messages/{name}",
                "name": name,
                "description": words,
                "dataType": "sc:Text",
                "source": _source(f"$.messages[*].{name}", "jsonPath"),
            }
            for name, words in _TURNS.items()
        ]
        return {
            "@type": "cr:Field",
            "@id": "default/messages",
            "name": "messages",
            "description": "A conversation: the prompt, and what the model answered.",
            "repeated": True,
            "subField": parts,
        }
    return {
        "@type": "cr:Field",
        "@id": f"default/{column}",
        "name": column,
        "description": (_VOTED if facts.voted else _COLUMNS)[column],
        "dataType": "sc:Text",
        "source": _source(column, "column"),
    }


def _source(place: str, kind: str) -> dict[str, Any]:
    return {"fileObject": {"@id": "records"}, "extract": {kind: place}}
