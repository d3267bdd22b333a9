"""A file server on this machine that fails on purpose, one fault a request."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; nothing by default."""

    drop_after: int | None = None  # bytes of the body
    status: int | None = None
    ignore_range: bool = False
    wrong_range: bool = False
    corrupt_at: int | None = None  # byte of the file
    states: int | None = None  # Content-Length
    states_nothing: bool = False
    chunked: bool = False
    then_serves: bytes | None = None  # another file of the same name, with another ETag


@dataclass
class FileServer:
    """What is served under which name, what goes wrong next, and the ranges that were asked for."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)  # taken from the front
    default: Fault = field(default_factory=Fault)
    etag: str | None = None
    ranges: list[str | None] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def file_server() -> Iterator[FileServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        served = FileServer(f"http://127.0.0.1:{server.server_port}")
        server.served = served  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        served: FileServer = self.server.served  # type: ignore[attr-defined]
        fault = served.faults.pop(0) if served.faults else served.default
        wanted = self.headers.get("Range")
        served.ranges.append(wanted)
        content = served.files.get(self.path.lstrip("/"))
        if content is None or fault.status is not None:
            self.send_error(404 if fault.status is None else fault.status)
            return
        if fault.corrupt_at is not None:
            flipped = bytes([content[fault.corrupt_at] ^ 1])
            content = content[: fault.corrupt_at] + flipped + content[fault.corrupt_at + 1 :]
        self._answer(served, fault, content, wanted)
        if fault.then_serves is not None:
            served.files[self.path.lstrip("/")], served.etag = fault.then_serves, '"two"'

    def _answer(self, served: FileServer, fault: Fault, content: bytes, wanted: str | None) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        condition = self.headers.get("If-Range")
        start = 0
        if match and not fault.ignore_range and condition in (None, served.etag):
            start = int(match[1])
            if start >= len(content):
                self.send_error(416)
                return
            stated = start + 1 if fault.wrong_range else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {stated}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self._send(served, fault, content[start:])

    def _send(self, served: FileServer, fault: Fault, body: bytes) -> None:
        if served.etag:
            self.send_header("ETag", served.etag)
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not fault.states_nothing:
            self.send_header("Content-Length", str(fault.states or len(body)))
        self.end_headers()
        sent = body if fault.drop_after is None else body[: fault.drop_after]
        if fault.chunked:
            sent = b"%x\r\n%s\r\n" % (len(sent), sent)
            sent += b"0\r\n\r\n" if fault.drop_after is None else b""
        self.wfile.write(sent)

    def log_message(self, format: str, *arguments: object) -> None:
        pass
