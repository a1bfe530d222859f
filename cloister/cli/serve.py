"""`cloister serve` serves a finished adapter over HTTP; `serve-token` makes callers' tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from cloister.feedback.store import FeedbackStore
    from cloister.models.config import BaseType
    from cloister.service.library import Library
    from cloister.service.versions import Served, Version

# Four batches of `cloister predict` on a CPU (training.config.PLAIN_TOKENS): one pass of them takes
# well under a second on two cores.
BATCH_TOKENS = 8192
# Two cores answer this many short texts in two seconds (benchmarks/serving.py).
WAITING = 256


def serve(
    adapter: Annotated[
        Path | None,
        typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter, or a link to one."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")] = 8000,
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The token file that `cloister serve-token` writes; needed if other machines "
            "call.",
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, help="Most requests per minute of each caller. Absent: no limit."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds within which an answer must begin.")
    ] = 30.0,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens that are batched for one pass of the network.")
    ] = BATCH_TOKENS,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may wait; the next gets status 429.")
    ] = WAITING,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="TLS certificate chain; needs --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.")] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            metavar="INDEX",
            help="For a chat: answer only from this index (`cloister index build`).",
        ),
    ] = None,
    retriever: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN_OR_BASE",
            help="With --documents: the run that encodes questions. Absent: the index's model.",
        ),
    ] = None,
    least_score: Annotated[
        float | None,
        typer.Option(
            min=-1.0,
            max=1.0,
            help="With --documents: passages less similar to the question are not used; without "
            "any, no reply is generated. Absent: 0.3.",
        ),
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take feedback on answers, and keep it in this file; made if absent.",
        ),
    ] = None,
    feedback_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Encrypt it under the key in this file; made with a new store. Absent: not "
            "encrypted.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:N or mps. Absent: a CUDA GPU if there is one."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder of the base model. Absent: the base that the adapter names."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 or bfloat16: the type in which the base computes. Absent: the one of "
            "training.",
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(help="Instead of RUN_OR_ADAPTER: a registry (folder or fsspec URL)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="With --registry: the model whose promoted version is served."),
    ] = None,
    stage: Annotated[
        str, typer.Option(help="With --registry: the stage (cloister model promote).")
    ] = "production",
) -> None:
    """Serve a finished adapter: predictions, chat in OpenAI's format, metrics, and a page to try.

    On SIGTERM the service answers the requests that it has accepted and exits with 0. On SIGHUP it
    loads RUN_OR_ADAPTER again, or the version that the registry promotes now; no request is lost.
    With --documents a chat answers from the passages that it finds and cites them; if none is near
    enough, it says that it cannot answer. With --feedback, callers and the page say whether an
    answer was right; `cloister site feedback` reviews it.

    Example: cloister serve runs/bank
    """
    from cloister.dashboard.access_token import is_loopback
    from cloister.errors import UsageError
    from cloister.service.callers import Callers, read_callers

    callers = Callers() if tokens is None else read_callers(tokens)
    if tokens is None and not is_loopback(host):
        raise UsageError(
            f"--host {host}: other machines reach it, so callers need tokens: "
            "cloister serve-token NAME --tokens FILE makes one; pass --tokens FILE here"
        )
    if (certificate is None) != (key is None):
        raise UsageError("--certificate and --key: give both or none")
    if (registry is None) != (model is None):
        raise UsageError("--registry and --model: give both or none")
    if (adapter is None) == (registry is None):
        raise UsageError("give either RUN_OR_ADAPTER, or --registry and --model")
    _check_tls(certificate, key)
    if documents is None and (retriever, least_score) != (None, None):
        raise UsageError("--retriever, --least-score: given without --documents, which they are of")
    if dtype not in (None, "float32", "bfloat16"):
        raise UsageError(f"--dtype: {dtype} given; float32 or bfloat16 is needed")
    if feedback is None and feedback_key is not None:
        raise UsageError("--feedback-key: given without --feedback, whose file it encrypts")
    store = None if feedback is None else _store(feedback, feedback_key)
    from cloister.cli.dashboard import listen

    with listen(host, port) as place:
        from cloister.service.feedback_desk import FeedbackDesk
        from cloister.service.running import Settings, run_service
        from cloister.service.versions import Served

        typer.echo("… loading the base model", err=True)
        served = Served(_opening(adapter, registry, model, stage, device, base, dtype))
        library = None
        if documents is not None:
            library = _library(served, documents, retriever, least_score)
        settings = Settings(batch_tokens, queue, timeout, rate, certificate, key)
        _announce(place, host, is_secure=certificate is not None)

        def say(text: str) -> None:
            typer.echo(text, err=True)

        desk = None if store is None else FeedbackDesk(store)
        run_service(served, callers, settings, place, say, library, desk)


def _store(file: Path, key: Path | None) -> FeedbackStore:
    from cloister.feedback.store import FeedbackStore

    return FeedbackStore(file, key, make=True)


def _library(
    served: Served, documents: Path, retriever: Path | None, least: float | None
) -> Library:
    """Loads the documents of a chat.

    Raises:
        UsageError: The model is not a chat model.
    """
    from cloister.errors import UsageError
    from cloister.service.library import LEAST, open_library

    kind = served.current.model.workspace.task.kind
    if kind != "causal-lm":
        raise UsageError(f"--documents: given for {kind}; a chat (causal-lm) answers from them")
    typer.echo("… loading the documents", err=True)
    return open_library(documents, retriever, None, LEAST if least is None else least)


def _opening(
    adapter: Path | None,
    registry: str | None,
    model: str | None,
    stage: str,
    device: str | None,
    base: str | None,
    dtype: str | None,
) -> Callable[[], Version]:
    """Returns the function that loads the version to serve."""
    from cloister.service.versions import open_promoted, open_version

    kind = cast("BaseType | None", dtype)
    if adapter is not None:
        return lambda: open_version(adapter, device, base, kind)
    assert registry is not None
    assert model is not None
    return lambda: open_promoted(registry, model, stage, device, base, kind)


def serve_token(
    name: Annotated[str, typer.Argument(help="The caller, in your own words: letters and digits.")],
    tokens: Annotated[
        Path, typer.Option(metavar="FILE", help="The token file; created if it does not exist.")
    ],
) -> None:
    """Make a token for a caller of `cloister serve`, and print it once.

    The file keeps only the token's SHA-256. To revoke a token, delete the caller's line and restart
    the service, which reads the file when it starts.

    Example: cloister serve-token reception --tokens callers.json
    """
    from cloister.service.callers import add_caller

    typer.echo(add_caller(tokens, name))


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    """Reads certificate and key, so that errors are reported before the base is loaded.

    Raises:
        BadFileError: One of them cannot be read, or they do not belong together.
    """
    if certificate is None or key is None:
        return
    import ssl

    from cloister.errors import BadFileError

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError among them
        raise BadFileError(
            f"{certificate}, {key}: certificate and key cannot be read ({error}); both are "
            "needed in PEM, the key without a password"
        ) from error


def _announce(place: socket, host: str, *, is_secure: bool) -> None:
    from cloister.dashboard.access_token import is_loopback

    at = f"[{host}]" if ":" in host else host
    scheme = "https" if is_secure else "http"
    typer.echo(f"{scheme}://{at}:{place.getsockname()[1]}/ (Ctrl-C ends it)", err=True)
    if not is_secure and not is_loopback(host):
        typer.echo(
            "not encrypted: give --certificate and --key, or put a TLS proxy in front of it",
            err=True,
        )
