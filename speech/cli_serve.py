"""``speech serve``."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_decoding import load_recogniser, takes_decoder_options
from speech.cli_options import Precision, PrecisionOption, ThreadsOption
from speech.errors import SpeechError

if TYPE_CHECKING:
    from speech.decoder import DecoderOptions


@takes_decoder_options
def serve(
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Name of a shipped model or a directory.")
    ] = "base",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str, typer.Option(envvar="SPEECH_API_KEY", help="Ask clients for this key.")
    ] = "",
    model_alias: Annotated[
        list[str] | None, typer.Option(help="Further name for the model, such as whisper-1.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host name that clients may use; default: as bound.")
    ] = None,
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Size of an upload.")] = 100,
    max_audio_minutes: Annotated[float, typer.Option(min=0.1, help="Length of a recording.")] = 240,
    concurrency: Annotated[int, typer.Option(min=1, help="Recordings at the same time.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Further requests that may wait.")] = 128,
    per_client: Annotated[int, typer.Option(min=1, help="Requests of one address.")] = 128,
    live_sessions: Annotated[int, typer.Option(min=1, help="Live sessions.")] = 8,
    decode_seconds: Annotated[float, typer.Option(min=1, help="To decode one file.")] = 120,
    request_seconds: Annotated[float, typer.Option(min=1, help="To recognise one file.")] = 900,
    shutdown_seconds: Annotated[float, typer.Option(min=0, help="To finish at the end.")] = 60,
    page: Annotated[bool, typer.Option(help="Serve the page at /.")] = True,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log addresses and paths on stderr.")
    ] = False,
    *,
    decoding: DecoderOptions,
) -> None:
    r"""Serve transcription over HTTP: OpenAI's interface, live audio by WebSocket, a page.

    Needs the extra: pip install 'lstm-speech\[serve]'. Without --host only this machine is served.
    Ctrl-C or SIGTERM finishes what was begun.
    """
    try:
        from speech.serve import LOCAL_HOSTS, build_app, is_local
        from speech.serve import serve as run
    except ModuleNotFoundError as error:
        raise SpeechError(
            f"speech serve needs {error.name}: pip install 'lstm-speech[serve]'"
        ) from error
    from speech.http_guard import Access
    from speech.service import Limits

    limits = Limits(
        upload_bytes=max_upload_mb << 20, audio_seconds=60 * max_audio_minutes,
        concurrency=concurrency, queue=queue, per_client=per_client, live_sessions=live_sessions,
        decode_seconds=decode_seconds, request_seconds=request_seconds,
        shutdown_seconds=shutdown_seconds,
    )  # fmt: skip
    hosts = tuple(allow_host or ()) + (LOCAL_HOSTS if is_local(host) else ())
    if not (api_key or is_local(host)):
        _say(f"warning: whoever reaches {host} may use this server: --api-key asks for a key")
    # Who serves has more audio to come than a self-test costs.
    recogniser = load_recogniser(model, threads, decoding, precision.value, math.inf)
    names = [model.rstrip("/").rpartition("/")[2], *(model_alias or ())]
    app = build_app(recogniser, limits, Access(api_key, hosts), names, threads, page)
    run(app, host, port, lambda address: _say(f"serving {names[0]} at {address}"), log_requests)


def _say(message: str) -> None:
    print(f"speech: {message}", file=sys.stderr, flush=True)
