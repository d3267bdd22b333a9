"""What holds for every request: who may ask, headers for the page, errors without secrets."""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speech.errors import AudioError, AudioFormatError
from speech.isolated_audio import AudioLimitError
from speech.openai_format import ApiError
from speech.server_metrics import ServerMetrics

log = logging.getLogger("speech.serve")

READABLE = "wav, flac, ogg, opus, mp3, aiff, m4a, aac, webm, mp4 and the like"
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Access:
    """Who may use a server."""

    api_key: str = ""  # empty: everybody who reaches it
    hosts: tuple[str, ...] = ()  # the names it answers to; empty: any

    def check_key(self, authorisation: str) -> None:
        """Raise `ApiError` 401 unless the Authorization header is what is asked for."""
        expected = f"Bearer {self.api_key}".encode()
        if self.api_key and not secrets.compare_digest(authorisation.encode(), expected):
            raise ApiError(401, "invalid_api_key", "a valid API key is needed: Bearer KEY")

    def check_origin(self, headers: Headers) -> None:
        """Raise `ApiError` where a browser asks for a page of another site.

        A page that resolves its own name to this machine is found out by the host it asks for.
        """
        host = headers.get("host", "")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            raise ApiError(403, "host_not_allowed", "the server does not answer to this host name")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(403, "origin_not_allowed", "pages of other sites are not served")


class Guard:
    """ASGI middleware around the application: access by origin, headers, errors, figures."""

    def __init__(self, app: ASGIApp, access: Access, metrics: ServerMetrics) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket or lifespan."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.monotonic()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message)
            await send(message)

        try:
            self._access.check_origin(Headers(scope=scope))
            await self._app(scope, receive, send_guarded)
        except (ClientDisconnect, OSError):
            self._metrics.hang_ups.inc()
        except Exception as error:
            if not isinstance(error, ApiError):
                log_error(error)
            if not status:
                await error_response(error)(scope, receive, send_guarded)
        self._count(scope, status, time.monotonic() - started_at)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._access.check_origin(Headers(scope=scope))
            await self._app(scope, receive, send)
        except ApiError:
            await send({"type": "websocket.close", "code": 1008})
        except Exception as error:
            log_error(error)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "other"
        self._metrics.answers.labels(route, str(status or "none")).inc()
        self._metrics.seconds.labels(route).observe(seconds)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    own = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
    message["headers"] = [*message.get("headers", []), *own]


def error_response(error: Exception) -> Response:
    """Return the answer to an error, in OpenAI's form."""
    told = api_error(error)
    headers = {}
    if told.retry_after_seconds is not None:
        headers["retry-after"] = str(told.retry_after_seconds)
    if told.status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    return JSONResponse(told.body(), told.status, headers)


def api_error(error: Exception) -> ApiError:
    """Return what a client is told of an error: nothing that is not its business."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, AudioFormatError):
        return ApiError(415, "unsupported_audio", f"the file is not audio; readable are {READABLE}",
                        "file")  # fmt: skip
    if isinstance(error, AudioLimitError):
        return ApiError(422, "audio_too_long", str(error), "file")
    if isinstance(error, AudioError):
        return ApiError(422, "damaged_audio", f"the audio cannot be decoded: {error}", "file")
    if isinstance(error, HTTPException):
        reasons = {404: "there is nothing here", 405: "the method is not allowed here"}
        reason = reasons.get(error.status_code, "the request cannot be served")
        return ApiError(error.status_code, "http_error", reason)
    return ApiError(500, "internal_error", "the server failed; its log says where")


def log_error(error: BaseException) -> None:
    """Log what failed and where, without the message, which may quote a client."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    log.error("%s at %s", type(error).__name__, place)
