"""The routes: OpenAI's transcription endpoint, models, figures, live audio, and the page.

``POST /v1/audio/posteriors`` is our own: what the network said of each output frame.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

import speech
from speech.errors import SpeechError
from speech.http_guard import Access, Guard, api_error, error_response
from speech.live_session import run_live_session
from speech.openai_format import (
    MEDIA_TYPES,
    ApiError,
    Options,
    delta_event,
    done_event,
    event,
    read_options,
    render,
)
from speech.server_metrics import ServerMetrics
from speech.service import Admission, Service
from speech.transcript import Transcript, Word
from speech.uploads import Form, read_form

T = TypeVar("T")

WEB_DIRECTORY = Path(__file__).parent / "web"
POSTERIOR_SECONDS = 60.0  # of audio, for which posteriors are given
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class State:
    """All that the routes share."""

    service: Service
    admission: Admission
    metrics: ServerMetrics
    access: Access
    models: tuple[str, ...]  # the model's name, then its aliases
    started_at: int


def create_app(
    service: Service,
    metrics: ServerMetrics,
    access: Access,
    models: Sequence[str],
    page: bool = True,
) -> FastAPI:
    """Return the application around a service, which it closes when it is shut down."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="speech", version=speech.__version__, lifespan=lifespan, docs_url=None,
                  redoc_url=None)  # fmt: skip
    app.state.speech = State(service, Admission(service.limits), metrics, access, tuple(models),
                             int(time.time()))  # fmt: skip
    for path, method, route in ROUTES:
        app.add_api_route(path, route, methods=[method], response_model=None)
    app.add_api_websocket_route("/v1/audio/live", live)
    if page:
        app.mount("/", StaticFiles(directory=WEB_DIRECTORY, html=True))
    for kind in (SpeechError, HTTPException):
        app.add_exception_handler(kind, _answer_error)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes damaged forms
    app.add_middleware(Guard, access=access, metrics=metrics)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    return error_response(error)


def state_of(connection: Request | WebSocket) -> State:
    """Return what `create_app` keeps for the routes."""
    state: State = connection.app.state.speech
    return state


# --- Uploads --------------------------------------------------------------------------------------


async def transcriptions(request: Request) -> Response:
    """Transcribe an uploaded recording."""
    state = state_of(request)
    async with AsyncExitStack() as stack:
        form = await _enter(request, state, stack)
        options = read_options(form.fields, state.models)
        path = await _stored(form, state, stack)
        if options.stream:
            return await _streamed(request, path, options, stack)
        transcript = await _unless_hung_up(request, state.service.transcribe(path))
        state.metrics.audio_seconds.labels("upload").inc(transcript.duration)
        return Response(render(transcript, options),
                        media_type=MEDIA_TYPES[options.response_format])  # fmt: skip


async def posteriors(request: Request) -> Response:
    """Return the probability of each token in each output frame, as bytes of 1/255."""
    state = state_of(request)
    async with AsyncExitStack() as stack:
        form = await _enter(request, state, stack)
        path = await _stored(form, state, stack)
        work = state.service.posteriors(path, POSTERIOR_SECONDS)
        probabilities = np.exp(await _unless_hung_up(request, work))
    content = np.rint(probabilities * 255).astype(np.uint8).tobytes()
    model = state.service.recogniser.model
    return JSONResponse({
        "seconds_per_frame": model.seconds_per_frame,
        "tokens": ["", *model.tokenizer.alphabet],  # the blank first
        "frames": len(probabilities),
        "probabilities": base64.b64encode(content).decode(),
    })  # fmt: skip


async def _enter(request: Request, state: State, stack: AsyncExitStack) -> Form:
    """Let a request in and read its form; both end with the stack."""
    state.access.check_key(request.headers.get("authorization", ""))
    client = request.client.host if request.client else ""
    await stack.enter_async_context(state.admission.request(client))
    limits = state.service.limits
    return await stack.enter_async_context(
        read_form(request, limits.upload_bytes, limits.upload_seconds)
    )


async def _stored(form: Form, state: State, stack: AsyncExitStack) -> Path:
    """Wait for a turn; return the upload as a file, which goes with the stack."""
    await stack.enter_async_context(state.admission.turn())
    path = await asyncio.to_thread(state.service.store, form.file.file)
    stack.callback(path.unlink)
    return path


async def _unless_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of some work, which is cancelled when the client hangs up."""
    task = asyncio.create_task(work)
    watching = asyncio.create_task(_hang_up(request.receive))
    try:
        await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watching.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- Streams of events ----------------------------------------------------------------------------


async def _streamed(
    request: Request, path: Path, options: Options, stack: AsyncExitStack
) -> Response:
    """Return a response that sends events; it takes over what the stack holds."""
    state = state_of(request)
    news: asyncio.Queue[Sequence[Word] | Transcript | Exception] = asyncio.Queue()

    async def transcribe() -> None:
        try:
            news.put_nowait(await state.service.transcribe(path, news.put_nowait))
        except Exception as error:
            news.put_nowait(error)

    task = asyncio.create_task(transcribe())
    stack.callback(task.cancel)
    first = await _unless_hung_up(request, news.get())
    if isinstance(first, Exception):
        raise first  # before the first words an error still has a status of its own
    events = _events(_chain(first, news), options, state.metrics)
    return EventStream(events, stack.pop_all())


async def _chain(first: T, queue: asyncio.Queue[T]) -> AsyncIterator[T]:
    yield first
    while True:
        yield await queue.get()


async def _events(
    news: AsyncIterator[Sequence[Word] | Transcript | Exception],
    options: Options,
    metrics: ServerMetrics,
) -> AsyncIterator[str]:
    """Yield the events of words, as they are heard, and of the end."""
    is_first = True
    async for new in news:
        if isinstance(new, Exception):
            yield event(api_error(new).body())
            return
        if isinstance(new, Transcript):
            metrics.audio_seconds.labels("upload").inc(new.duration)
            yield done_event(new, options)
            return
        if new:
            yield delta_event(new, is_first, options)
            is_first = False


class EventStream(Response):
    """Server-sent events; whatever happens, what they need is let go at the end."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], needed: AsyncExitStack) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._events = events
        self._needed = needed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client hangs up."""
        async with self._needed:
            sending = asyncio.create_task(self._send(send))
            watching = asyncio.create_task(_hang_up(receive))
            try:
                await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    raise ClientDisconnect
                sending.result()
            finally:
                sending.cancel()
                watching.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code,
                    "headers": self.raw_headers})  # fmt: skip
        async for text in self._events:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


# --- The rest -------------------------------------------------------------------------------------


async def models(request: Request) -> dict[str, Any]:
    """List the model and its aliases."""
    state = state_of(request)
    state.access.check_key(request.headers.get("authorization", ""))
    return {"object": "list", "data": [_model(state, name) for name in state.models]}


async def model(request: Request, name: str) -> dict[str, Any]:
    """Describe one model."""
    state = state_of(request)
    state.access.check_key(request.headers.get("authorization", ""))
    if name not in state.models:
        raise ApiError(404, "model_not_found", f"no such model; there is {', '.join(state.models)}")
    return _model(state, name)


def _model(state: State, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": state.started_at, "owned_by": "speech"}


async def health(request: Request) -> Response:
    """Say whether requests are taken: 200, or 503 while the server shuts down."""
    state = state_of(request)
    draining = state.admission.draining.is_set()
    content = {
        "status": "shutting down" if draining else "ok",
        "version": speech.__version__,
        "model": state.models[0],
        "needs_key": bool(state.access.api_key),
    }
    return JSONResponse(content, 503 if draining else 200)


async def prometheus(request: Request) -> Response:
    """Give the figures in Prometheus' text format."""
    state = state_of(request)
    state.access.check_key(request.headers.get("authorization", ""))
    state.metrics.requests.set(state.admission.requests)
    state.metrics.live_sessions.set(state.admission.live_sessions)
    state.metrics.waiting.set(state.service.batcher.waiting)
    return Response(state.metrics.render(), media_type=METRICS_TYPE)


async def live(socket: WebSocket) -> None:
    """Transcribe live audio."""
    state = state_of(socket)
    await run_live_session(socket, state.service, state.admission, state.metrics, state.access)


ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("/v1/audio/transcriptions", "POST", transcriptions),
    ("/v1/audio/posteriors", "POST", posteriors),
    ("/v1/models", "GET", models),
    ("/v1/models/{name}", "GET", model),
    ("/health", "GET", health),
    ("/metrics", "GET", prometheus),
)
