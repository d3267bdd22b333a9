"""A server for tests: a tiny model behind the whole application, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI

from speech.decoder import GREEDY
from speech.http_guard import Access
from speech.serve import GracefulServer, build_app
from speech.service import Limits
from speech.transcribe import Recogniser

MODELS = ("tiny", "whisper-1")


def tiny_app(model: Path, limits: Limits | None = None, access: Access | None = None) -> FastAPI:
    """Return an application that knows the model in a directory as ``tiny`` and ``whisper-1``."""
    recogniser = Recogniser.load(model, threads=2, options=GREEDY)
    return build_app(recogniser, limits or Limits(), access or Access(), MODELS, threads=2)


def babble(seconds: float, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Noise in bursts: a model with random weights hears words in it."""
    random = np.random.default_rng(seed)
    count = round(seconds * sample_rate)
    loudness = np.repeat(random.choice([0.0, 0.1, 0.5], count // 1000 + 1), 1000)[:count]
    return (random.standard_normal(count) * loudness).astype(np.float32)


@contextmanager
def running(app: FastAPI) -> Iterator[tuple[str, GracefulServer]]:
    """Serve on a free port from a thread; yield the address and the server."""
    limits = app.state.speech.service.limits
    config = uvicorn.Config(app, port=0, log_level="critical", ws_max_size=1 << 20,
                            timeout_graceful_shutdown=int(limits.shutdown_seconds))  # fmt: skip
    server = GracefulServer(config, app.state.speech.admission, limits)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.02)
        (listener,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def hold(service: Any) -> threading.Event:
    """Let a service recognise nothing before the event that is returned is set."""
    opened = threading.Event()
    recognise = service.batcher._recognise

    def wait_and_recognise(samples: Any) -> Any:
        assert opened.wait(30)
        return recognise(samples)

    service.batcher._recognise = wait_and_recognise
    return opened
