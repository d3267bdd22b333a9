"""One client's live audio over a WebSocket: 16-bit PCM in, partial and final results out.

The client sends binary messages of little-endian 16-bit mono samples at SAMPLE_RATE, at any pace,
and ``{"type": "finish"}`` at the end. Where a key is needed and there is no Authorization header
(browsers set none), its first message is ``{"type": "start", "api_key": KEY}``. The server sends
JSON: ``ready``, then ``partial`` and ``final`` with ``start``, ``end``, ``text`` and ``words``, at
the end ``done``; or ``error`` in OpenAI's form, and closes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import soxr
from starlette.websockets import WebSocket, WebSocketDisconnect

from speech.http_guard import Access, api_error, log_error
from speech.live import Update
from speech.openai_format import ApiError, word_object
from speech.server_metrics import ServerMetrics
from speech.service import Admission, Service

SAMPLE_RATE = 16000
_BYTES_PER_SECOND = 2 * SAMPLE_RATE
_AHEAD_SECONDS = 20.0  # of audio held for a client that sends faster than is recognised
_START_SECONDS = 10.0  # for the first message
_IDLE_SECONDS = 60.0  # without a message a session ends
_CLOSE_CODES = {401: 1008, 400: 1003, 413: 1009, 422: 1009, 503: 1013}
_INTERNAL, _GOING_AWAY, _NORMAL = 1011, 1001, 1000


async def run_live_session(
    socket: WebSocket,
    service: Service,
    admission: Admission,
    metrics: ServerMetrics,
    access: Access,
) -> None:
    """Serve one WebSocket from its handshake to its end."""
    await socket.accept()
    try:
        await _authorise(socket, access)
        async with admission.live_session():
            await _Session(socket, service, admission, metrics).run()
    except (WebSocketDisconnect, OSError):
        metrics.hang_ups.inc()
    except Exception as error:
        if not isinstance(error, ApiError):
            log_error(error)
        told = api_error(error)
        await _send(socket, {"type": "error"} | told.body())
        await socket.close(_CLOSE_CODES.get(told.status, _INTERNAL))


async def _authorise(socket: WebSocket, access: Access) -> None:
    header = socket.headers.get("authorization", "")
    if access.api_key and not header:
        async with asyncio.timeout(_START_SECONDS):
            key = str(_control(await socket.receive_text(), "start").get("api_key", ""))
        header = f"Bearer {key}"
    access.check_key(header)


def _control(text: str, kind: str) -> dict[str, Any]:
    """Return a control message of this kind."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("type") != kind:
        raise ApiError(400, "invalid_message", f'the message must be JSON with "type": "{kind}"')
    return content


async def _send(socket: WebSocket, content: dict[str, Any]) -> None:
    await socket.send_text(json.dumps(content, ensure_ascii=False))


class _Session:
    """The state of a session: what came and is not recognised yet."""

    def __init__(
        self, socket: WebSocket, service: Service, admission: Admission, metrics: ServerMetrics
    ) -> None:
        self._socket = socket
        self._service = service
        self._draining = admission.draining
        self._metrics = metrics
        self._recogniser = service.live_recogniser()
        self._resampler = None
        if service.sample_rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(SAMPLE_RATE, service.sample_rate, 1, "float32")
        self._pcm = bytearray()
        self._received_bytes = 0
        self._changed = asyncio.Event()  # something came, or nothing will any more
        self._room = asyncio.Event()
        self._is_over = False

    async def run(self) -> None:
        await _send(self._socket, {"type": "ready", "sample_rate": SAMPLE_RATE})
        receiving = asyncio.create_task(self._receive())
        ending = asyncio.create_task(self._draining.wait())
        ending.add_done_callback(lambda _: self._changed.set())
        try:
            while not (self._is_over or self._draining.is_set()) or self._pcm:
                await self._changed.wait()
                self._changed.clear()
                await self._recognise()
                if receiving.done():
                    receiving.result()  # raises what ended it
                    self._is_over = True
            await self._finish()
        finally:
            receiving.cancel()
            ending.cancel()

    async def _receive(self) -> None:
        """Take messages until the client says that it is finished."""
        try:
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message.get("code", _GOING_AWAY))
                if message.get("text") is not None:
                    _control(message["text"], "finish")
                    return
                await self._take(message["bytes"])
        except TimeoutError:
            raise ApiError(408, "idle", f"nothing came for {_IDLE_SECONDS:.0f} s") from None
        finally:
            self._changed.set()

    async def _take(self, pcm: bytes) -> None:
        self._received_bytes += len(pcm)
        if self._received_bytes > self._service.limits.audio_seconds * _BYTES_PER_SECOND:
            limit = self._service.limits.audio_seconds
            raise ApiError(422, "audio_too_long", f"a session may last {limit:.0f} s")
        self._pcm += pcm
        self._changed.set()
        while len(self._pcm) > _AHEAD_SECONDS * _BYTES_PER_SECOND:
            self._room.clear()
            await self._room.wait()

    async def _recognise(self) -> None:
        """Recognise what has come so far; what comes meanwhile is next."""
        whole = len(self._pcm) - len(self._pcm) % 2
        pcm = bytes(self._pcm[:whole])
        del self._pcm[:whole]
        self._room.set()
        if not pcm:
            self._pcm.clear()  # half a sample at the very end
            return
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        if self._resampler is not None:
            samples = np.asarray(self._resampler.resample_chunk(samples), np.float32)
        self._metrics.audio_seconds.labels("live").inc(len(pcm) / _BYTES_PER_SECOND)
        await self._tell(await self._service.in_live_thread(lambda: self._recogniser.push(samples)))

    async def _finish(self) -> None:
        await self._tell(await self._service.in_live_thread(self._recogniser.finish))
        duration = self._received_bytes / _BYTES_PER_SECOND
        await _send(self._socket, {"type": "done", "duration": round(duration, 3)})
        await self._socket.close(_GOING_AWAY if self._draining.is_set() else _NORMAL)

    async def _tell(self, updates: list[Update]) -> None:
        for update in updates:
            await _send(self._socket, {
                "type": "final" if update.is_final else "partial",
                "start": round(update.start, 3), "end": round(update.end, 3), "text": update.text,
                "words": [word_object(word) for word in update.words],
            })  # fmt: skip
