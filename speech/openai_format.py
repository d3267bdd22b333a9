"""The shapes of OpenAI's transcription interface: its parameters, answers, events and errors.

Reference: https://platform.openai.com/docs/api-reference/audio/createTranscription. A parameter
that would have no effect here is refused, not ignored.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speech.errors import SpeechError
from speech.transcript import WRITERS, Transcript, Word, to_milliseconds, to_segments

MEDIA_TYPES = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
STREAMED_FORMATS = ("json", "text", "verbose_json")  # the last is an extension of ours
GRANULARITIES = ("word", "segment")
INCLUDES = ("srt", "vtt", "tsv")  # subtitles within verbose_json, an extension of ours
LANGUAGE = "english"
_LANGUAGE_NAMES = ("en", LANGUAGE)
_IGNORABLE = {"temperature": ("0", "0.0"), "chunking_strategy": ("auto",)}  # what we do anyway
_KNOWN = ("file", "model", "language", "response_format", "timestamp_granularities",
          "timestamp_granularities[]", "include", "include[]", "stream", *_IGNORABLE)  # fmt: skip
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(SpeechError):
    """A request that cannot be served: HTTP status, a stable code, one line for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _ERROR_TYPES.get(self.status, kind)
        content = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": content}


@dataclass(frozen=True)
class Options:
    """How a transcription is wanted."""

    response_format: str = "json"
    granularities: tuple[str, ...] = ("segment",)
    stream: bool = False
    includes: tuple[str, ...] = ()


def read_options(fields: Mapping[str, Sequence[str]], models: Sequence[str]) -> Options:
    """Return the options in a form's text fields. Raises `ApiError` 400, or 404 for the model."""
    _check_names(fields)
    _check_model(_one(fields, "model"), models)
    language = _one(fields, "language")
    if language and language.lower() not in _LANGUAGE_NAMES:
        raise _bad("language", "unsupported_language", "the model knows English only: en")
    form = _one(fields, "response_format") or "json"
    if form not in MEDIA_TYPES:
        known = ", ".join(MEDIA_TYPES)
        raise _bad("response_format", "unsupported_format", f"response_format must be of {known}")
    granularities = _choices(fields, "timestamp_granularities", GRANULARITIES, form)
    includes = _choices(fields, "include", INCLUDES, form)
    return Options(form, granularities or ("segment",), _stream(fields, form), includes)


def _check_names(fields: Mapping[str, Sequence[str]]) -> None:
    for name, values in fields.items():
        if name not in _KNOWN:  # its name is the client's, which is not repeated
            message = f"a parameter is not supported; supported are {', '.join(_KNOWN)}"
            raise _bad(None, "unsupported_parameter", message)
        if name in _IGNORABLE and any(value not in _IGNORABLE[name] for value in values):
            expected = " or ".join(_IGNORABLE[name])
            raise _bad(name, "unsupported_value", f"{name} must be {expected}")


def _check_model(name: str, models: Sequence[str]) -> None:
    if not name:
        raise _bad("model", "missing_parameter", f"model is needed; there is {', '.join(models)}")
    if name not in models:
        raise ApiError(404, "model_not_found", f"no such model; there is {', '.join(models)}",
                       "model")  # fmt: skip


def _choices(
    fields: Mapping[str, Sequence[str]], name: str, known: Sequence[str], form: str
) -> tuple[str, ...]:
    """Return the values of a parameter that may be given several times, of verbose_json only."""
    wanted = [*fields.get(name, ()), *fields.get(f"{name}[]", ())]
    if any(value not in known for value in wanted):
        raise _bad(name, "unsupported_value", f"{name} must be of {', '.join(known)}")
    if wanted and form != "verbose_json":
        raise _bad(name, "unsupported_value", f"{name} needs response_format verbose_json")
    return tuple(wanted)


def _stream(fields: Mapping[str, Sequence[str]], form: str) -> bool:
    value = _one(fields, "stream").lower() or "false"
    if value not in ("true", "false", "1", "0"):
        raise _bad("stream", "unsupported_value", "stream must be true or false")
    if value in ("false", "0"):
        return False
    if form not in STREAMED_FORMATS:
        raise _bad(
            "stream",
            "unsupported_value",
            f"stream needs response_format {' or '.join(STREAMED_FORMATS)}",
        )
    return True


def _one(fields: Mapping[str, Sequence[str]], name: str) -> str:
    values = fields.get(name, ())
    if len(values) > 1:
        raise _bad(name, "repeated_parameter", f"{name} was given {len(values)} times")
    return values[0] if values else ""


def _bad(param: str | None, code: str, message: str) -> ApiError:
    return ApiError(400, code, message, param)


# --- Answers --------------------------------------------------------------------------------------


def render(transcript: Transcript, options: Options) -> str:
    """Return the body of an answer in the format asked for."""
    if options.response_format == "json":
        return _dump({"text": transcript.text, "usage": usage(transcript.duration)})
    if options.response_format == "verbose_json":
        return _dump(verbose(transcript, options))
    written = WRITERS[options.response_format](transcript)
    return written + "\n" if options.response_format == "text" else written


def verbose(transcript: Transcript, options: Options) -> dict[str, Any]:
    """Return the content of ``verbose_json``; words carry their confidence as well."""
    content: dict[str, Any] = {
        "task": "transcribe",
        "language": LANGUAGE,
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
        "usage": usage(transcript.duration),
    }
    if "segment" in options.granularities:
        content["segments"] = segments(transcript)
    if "word" in options.granularities:
        content["words"] = [word_object(word) for word in transcript.words]
    if options.includes:
        content["subtitles"] = {name: WRITERS[name](transcript) for name in options.includes}
    return content


def word_object(word: Word) -> dict[str, Any]:
    """Return a word with times in seconds and its confidence."""
    return {
        "word": word.word,
        "start": _seconds(word.start),
        "end": _seconds(word.end),
        "confidence": round(float(word.confidence), 4),
    }


def segments(transcript: Transcript) -> list[dict[str, Any]]:
    """Return the subtitles as OpenAI's segments.

    ``avg_logprob`` is the mean natural logarithm of the words' confidences, ``no_speech_prob`` one
    minus the highest of them: the belief that none of the words was said. ``tokens`` are a model's
    own and empty here.
    """
    words = list(transcript.words)
    found = []
    for number, segment in enumerate(to_segments(transcript)):
        text = " ".join(segment.lines)
        own, words = words[: len(text.split())], words[len(text.split()) :]
        confidences = [max(word.confidence, 1e-6) for word in own]
        found.append({
            "id": number, "seek": 0, "start": segment.start_ms / 1000, "end": segment.end_ms / 1000,
            "text": text, "tokens": [], "temperature": 0.0,
            "avg_logprob": round(sum(map(math.log, confidences)) / len(own), 4),
            "compression_ratio": round(len(text) / len(zlib.compress(text.encode())), 4),
            "no_speech_prob": round(1 - max(confidences), 4),
        })  # fmt: skip
    return found


def delta_event(words: Sequence[Word], is_first: bool, options: Options) -> str:
    """Return the server-sent event of words that are new; verbose, with their times."""
    text = ("" if is_first else " ") + " ".join(word.word for word in words)
    content: dict[str, Any] = {"type": "transcript.text.delta", "delta": text}
    if options.response_format == "verbose_json" and "word" in options.granularities:
        content["words"] = [word_object(word) for word in words]
    return event(content)


def done_event(transcript: Transcript, options: Options) -> str:
    """Return the server-sent event that ends a stream; verbose, with all there is."""
    content = {"text": transcript.text, "usage": usage(transcript.duration)}
    if options.response_format == "verbose_json":
        content = verbose(transcript, options)
    return event({"type": "transcript.text.done"} | content)


def event(content: Mapping[str, Any]) -> str:
    """Return JSON as one server-sent event."""
    return f"data: {_dump(content)}\n\n"


def usage(seconds: float) -> dict[str, Any]:
    """Return the length of the audio as OpenAI reports usage: whole seconds, rounded up."""
    return {"type": "duration", "seconds": math.ceil(seconds)}


def _seconds(seconds: float) -> float:
    return to_milliseconds(seconds) / 1000


def _dump(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)
