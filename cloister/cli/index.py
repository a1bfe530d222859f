"""`cloister index`: indexes and searches an institution's documents on its own machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.errors import UsageError

app = typer.Typer(
    help="Index and search documents; nothing leaves this machine.", no_args_is_help=True
)
# Most characters of a passage that a terminal shows.
SHOWN = 300

ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="A retrieval run, or a base that encodes sentences. Absent: the index's own."
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(help="Folder of the run's base model. Absent: the base that the run names."),
]


@app.command("build")
def build(
    documents: Annotated[
        list[Path],
        typer.Argument(
            metavar="DOCS…", help="Texts (.txt, .md, .rst), data files, or folders of them."
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(help="A finished run of retrieval, or the folder or hub id of a base."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the index; only you can read it.")],
    text: Annotated[str, typer.Option(help="Column of a data file's texts.")] = "text",
    title: Annotated[str, typer.Option(help="Column of their titles, if there is one.")] = "title",
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of all files. Absent: detected.")
    ] = None,
    base: BaseOption = None,
) -> None:
    """Cut documents into passages, encode them and write an index.

    Passages end at ends of sentences, in English and Chinese, and begin with the end of the passage
    before. The frozen base encodes them, so the index works with every adapter over that base and
    with no other base. More than 100,000 passages need usearch (pip install 'cloister[search]').

    Example: cloister index build handbook/ --model runs/help --out handbook.index
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.outputs import check_place
    from cloister.documents.encoder import open_encoder
    from cloister.documents.index import build_index, save_index
    from cloister.documents.sources import documents_of, files_in

    check_place(out, what="folder")
    files = files_in(documents)
    typer.echo("… loading the base model", err=True)
    encoder = open_encoder(model, base)
    with row_progress("encoded") as progress:
        found = (
            document
            for name, path in files
            for document in documents_of(name, path, text, title, encoding)
        )
        index = build_index(found, encoder, progress)
    save_index(index, out)
    passages = f"{len(index.passages):,} passages of {len(index.documents):,} files"
    typer.echo(f"{passages}: {out}", err=True)
    if index.graph is not None:
        typer.echo(
            f"searched by a graph, which finds {index.graph.recall:.1%} of the ten nearest "
            "(measured on passages of its own, against an exact search)",
            err=True,
        )


@app.command("search")
def search(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="An index from `cloister index build`.")
    ],
    text: Annotated[list[str], typer.Option(help="A query; may be repeated.")],
    top: Annotated[
        int, typer.Option(min=1, max=100, help="Number of passages for each query.")
    ] = 5,
    model: ModelOption = None,
    base: BaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the passages nearest to a query.

    Example: cloister index search handbook.index --text "how do I return a parcel"
    """
    from cloister.documents.encoder import open_encoder
    from cloister.documents.index import load_index

    if blank := [number for number, one in enumerate(text, 1) if not one.strip()]:
        raise UsageError(f"--text: the text {blank[0]} is empty; give a query")
    found = load_index(index)
    typer.echo("… loading the base model", err=True)
    encoder = open_encoder(model or Path(found.model), base)
    found.check_encoder(encoder)
    hits = [found.search(vector, top) for vector in encoder.queries(text)]
    if as_json:
        rows = [
            {
                "query": query,
                "passages": [
                    {
                        "source": hit.passage.source,
                        "row": hit.passage.row,
                        "title": hit.passage.title,
                        "start": hit.passage.start,
                        "text": hit.passage.text,
                        "similarity": hit.similarity,
                    }
                    for hit in own
                ],
            }
            for query, own in zip(text, hits, strict=True)
        ]
        typer.echo(json.dumps({"index": str(index), "results": rows}, ensure_ascii=False))
        return
    for query, own in zip(text, hits, strict=True):
        typer.echo(query)
        for number, hit in enumerate(own, 1):
            one = hit.passage
            place = one.source if one.row is None else f"{one.source}, row {one.row}"
            named = f"{one.title} ({place})" if one.title else place
            shown = " ".join(one.text.split())
            shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
            typer.echo(f"{number:>4}  {hit.similarity:.3f}  {named}\n      {shown}")
