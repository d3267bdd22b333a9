"""Multipart forms from clients, read with limits on size and time while they come."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from speech.openai_format import ApiError

MAX_FIELDS = 32
FORM_BYTES = 1 << 20  # that a form may have besides its file
_DRAINED_BYTES = 16 << 20  # read and thrown away, so that a client hears why it is refused


@dataclass(frozen=True)
class Form:
    """The text fields, by name, and the one file."""

    fields: dict[str, list[str]]
    file: UploadFile


@asynccontextmanager
async def read_form(request: Request, max_bytes: int, max_seconds: float) -> AsyncIterator[Form]:
    """Read a form with a file of at most `max_bytes`; the file goes when the context ends.

    Large files are on disk, not in memory. Raises `ApiError` 400 for what is no such form, 408
    where it takes longer than `max_seconds`, 413 where it is larger.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "invalid_form", "the body must be multipart/form-data with a file")
    stream = _limited(request, max_bytes + FORM_BYTES)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=MAX_FIELDS)
    try:
        async with asyncio.timeout(max_seconds):
            data = await parser.parse()
    except TimeoutError:
        raise ApiError(408, "upload_timeout", "the upload took longer than allowed") from None
    except MultiPartException:
        raise ApiError(400, "invalid_form", "the form is damaged or has too many parts") from None
    try:
        yield _check(data.multi_items(), max_bytes)
    finally:
        await data.close()


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes]:
    """Yield the body, up to `max_bytes`."""
    error = ApiError(413, "file_too_large", f"the upload is too large: at most {max_bytes} bytes")
    stated = request.headers.get("content-length", "")
    is_refused = stated.isdecimal() and int(stated) > max_bytes
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            is_refused = True
        if not is_refused:
            yield chunk
        elif received > max_bytes + _DRAINED_BYTES:
            break
    if is_refused:
        raise error


def _check(items: list[tuple[str, UploadFile | str]], max_bytes: int) -> Form:
    fields: dict[str, list[str]] = defaultdict(list)
    files = []
    for name, value in items:
        if isinstance(value, str):
            fields[name].append(value)
        elif name == "file":
            files.append(value)
    if not files:
        raise ApiError(400, "missing_parameter", "the form has no file", "file")
    if (files[0].size or 0) > max_bytes:
        raise ApiError(413, "file_too_large", f"the file is too large: at most {max_bytes} bytes",
                       "file")  # fmt: skip
    return Form(dict(fields), files[0])
