"""The server process: a service, its application, and an end that finishes what was begun."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI

from speech.http_guard import Access
from speech.serve_app import create_app
from speech.server_metrics import ServerMetrics
from speech.service import Admission, Limits, Service
from speech.stop import stop_signals
from speech.transcribe import Recogniser

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_MESSAGE_BYTES = 1 << 20  # of a WebSocket: half a minute of audio
_KEEP_ALIVE_SECONDS = 15


def is_local(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def build_app(
    recogniser: Recogniser,
    limits: Limits,
    access: Access,
    models: Sequence[str],
    threads: int | None = None,
    page: bool = True,
) -> FastAPI:
    """Return the whole application around a recogniser."""
    metrics = ServerMetrics()
    service = Service(recogniser, limits, threads, metrics.batch)
    return create_app(service, metrics, access, models, page)


def serve(
    app: FastAPI,
    host: str,
    port: int,
    on_start: Callable[[str], None] = lambda address: None,
    log_requests: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was begun; a second signal ends at once.

    `port` 0 takes a free one; `on_start` is told the address. OSError where the port is taken.
    """
    limits: Limits = app.state.speech.service.limits
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    config = uvicorn.Config(
        app, access_log=log_requests, log_level="info" if log_requests else "critical",
        ws_max_size=_MESSAGE_BYTES, timeout_keep_alive=_KEEP_ALIVE_SECONDS, server_header=False,
        timeout_graceful_shutdown=int(limits.shutdown_seconds),
    )  # fmt: skip
    with stop_signals(), _listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        on_start(f"http://{name}:{listener.getsockname()[1]}")
        GracefulServer(config, app.state.speech.admission, limits).run([listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


class GracefulServer(uvicorn.Server):
    """Lets live sessions say their last words before connections are closed."""

    def __init__(self, config: uvicorn.Config, admission: Admission, limits: Limits) -> None:
        super().__init__(config)
        self._admission = admission
        self._seconds = limits.shutdown_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, wait for live sessions, then for requests."""
        self._admission.draining.set()
        try:
            async with asyncio.timeout(self._seconds):
                while self._admission.live_sessions and not self.force_exit:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        await super().shutdown(sockets)
