"""Ask a running `speech serve` as many clients at once, and measure what it gives them.

    speech serve --port 8000 &
    python scripts/load_test.py http://127.0.0.1:8000 data/sample/audio/*.flac --clients 1 64 \
        --disturbers 4

Each recording is first transcribed alone. Then, for each number of clients, every client asks for
one recording after the other for --seconds; what was begun is waited for. Printed are the requests
and seconds of audio done in a second, percentiles of the time to an answer, refusals (429 and 503,
after which a client waits as long as the server asks), errors, answers that never came, and those
that differ from the one given alone. Meanwhile --disturbers upload garbage, hang up while they send
and hang up before they are answered: nobody else may notice, and garbage that is not refused as
such counts as an error. Exit status 1 where there are errors, losses or differences.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from command import run_command

from speech.errors import SpeechError

PERCENTILES = (50, 90, 99, 100)
REFUSALS = (429, 503)
NO_ANSWER = 0  # in place of a status
NO_AUDIO = 415  # the status that garbage should be given
GARBAGE = b"no sound at all " * 4096
TIMEOUT_SECONDS = 300.0
PAUSE_SECONDS = 0.1  # from one disturbance to the next
COLUMNS = ("clients", "requests", "a second", "audio s/s", *(f"p{p} s" for p in PERCENTILES),
           "refused", "errors", "lost", "different")  # fmt: skip


@dataclass(frozen=True)
class Target:
    url: str
    model: str
    api_key: str = ""


@dataclass(frozen=True)
class Recording:
    path: Path
    seconds: float  # as the server hears it
    text: str  # given to one client alone


@dataclass(frozen=True)
class Answer:
    recording: int
    status: int
    seconds: float  # until it was there
    content: dict[str, object]
    retry_after_seconds: float = 0.0


@dataclass(frozen=True)
class Load:
    """What so many clients at once were given."""

    clients: int
    wall_seconds: float
    done: int
    audio_seconds: float
    latency_seconds: tuple[float, ...]  # PERCENTILES of the answers that are transcripts
    refused: int
    errors: int
    lost: int
    different: int

    @property
    def is_clean(self) -> bool:
        return self.done > 0 and not (self.errors or self.lost or self.different)


def summarise(
    clients: int, wall_seconds: float, answers: Sequence[Answer], recordings: Sequence[Recording]
) -> Load:
    done = [answer for answer in answers if answer.status == 200]
    refused = sum(answer.status in REFUSALS for answer in answers)
    lost = sum(answer.status == NO_ANSWER for answer in answers)
    latencies = [answer.seconds for answer in done] or [float("nan")]
    return Load(
        clients=clients,
        wall_seconds=wall_seconds,
        done=len(done),
        audio_seconds=sum(recordings[answer.recording].seconds for answer in done),
        latency_seconds=tuple(float(np.percentile(latencies, p)) for p in PERCENTILES),
        refused=refused,
        errors=len(answers) - len(done) - refused - lost,
        lost=lost,
        different=sum(a.content.get("text") != recordings[a.recording].text for a in done),
    )


# --- Clients --------------------------------------------------------------------------------------


def form_of(file: bytes, model: str) -> tuple[bytes, str]:
    """Return the body of a transcription request, and its content type."""
    boundary = uuid.uuid4().hex
    fields = {"model": model, "response_format": "verbose_json"}
    head = "".join(
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="audio"\r\n\r\n'
    body = head.encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def connect(target: Target) -> http.client.HTTPConnection:
    parts = urlsplit(target.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=TIMEOUT_SECONDS)


def begin_request(
    connection: http.client.HTTPConnection, target: Target, size: int, content_type: str
) -> None:
    """Send all that stands before the body of a transcription request."""
    path = urlsplit(target.url).path.rstrip("/")
    connection.putrequest("POST", f"{path}/v1/audio/transcriptions")
    connection.putheader("content-type", content_type)
    connection.putheader("content-length", str(size))
    if target.api_key:
        connection.putheader("authorization", f"Bearer {target.api_key}")
    connection.endheaders()


def hang_up(target: Target, sent: int, body: bytes, content_type: str) -> None:
    """Send so many bytes of a request's body and go away."""
    connection = connect(target)
    try:
        begin_request(connection, target, len(body), content_type)
        connection.send(body[:sent])
    except OSError:
        pass  # the server may have closed first, of what it refuses
    finally:
        connection.close()


def ask(target: Target, number: int, body: bytes, content_type: str) -> Answer:
    """Post one recording; a connection that fails is an answer that never came."""
    connection = connect(target)
    began = time.perf_counter()
    try:
        begin_request(connection, target, len(body), content_type)
        connection.send(body)
        response = connection.getresponse()
        content = json.loads(response.read())
        wait = float(response.headers.get("retry-after", 0))
        return Answer(number, response.status, time.perf_counter() - began, content, wait)
    except (OSError, http.client.HTTPException, ValueError) as error:
        told = {"error": {"message": f"{type(error).__name__}: {error}"}}
        return Answer(number, NO_ANSWER, time.perf_counter() - began, told)
    finally:
        connection.close()


def transcribe_alone(target: Target, paths: Sequence[Path]) -> list[Recording]:
    recordings = []
    for number, path in enumerate(paths):
        answer = ask(target, number, *form_of(path.read_bytes(), target.model))
        if answer.status != 200:
            raise SpeechError(f"{path}: {answer.status} {message_of(answer)}")
        content = answer.content
        recordings.append(Recording(path, float(str(content["duration"])), str(content["text"])))
    return recordings


def message_of(answer: Answer) -> object:
    error = answer.content.get("error")
    return error.get("message") if isinstance(error, dict) else error


def disturb(target: Target, forms: Sequence[tuple[bytes, str]], until: float) -> list[Answer]:
    """Do what a client should not; return the answers to garbage that are not what they should."""
    garbage = form_of(GARBAGE, target.model)
    wrong: list[Answer] = []
    for body, content_type in cycle(forms):
        if time.perf_counter() >= until:
            break
        hang_up(target, len(body) // 2, body, content_type)
        hang_up(target, len(body), body, content_type)
        answer = ask(target, 0, *garbage)
        if answer.status not in (NO_AUDIO, *REFUSALS):
            wrong.append(replace(answer, status=answer.status if answer.status != 200 else 500))
        time.sleep(PAUSE_SECONDS)
    return wrong


def load(
    target: Target, recordings: Sequence[Recording], clients: int, seconds: float,
    disturbers: int = 0,
) -> tuple[Load, list[Answer]]:  # fmt: skip
    """Let clients ask for some time; return what they were given, in all and one by one."""
    forms = [form_of(recording.path.read_bytes(), target.model) for recording in recordings]
    began = time.perf_counter()

    def client(first: int) -> list[Answer]:
        answers: list[Answer] = []
        while time.perf_counter() - began < seconds:
            number = (first + len(answers)) % len(forms)
            answers.append(ask(target, number, *forms[number]))
            if answers[-1].status in REFUSALS:
                left = seconds - (time.perf_counter() - began)
                time.sleep(max(0.0, min(left, answers[-1].retry_after_seconds)))
        return answers

    with ThreadPoolExecutor(clients + disturbers) as threads:
        disturbing = [
            threads.submit(disturb, target, forms, began + seconds) for _ in range(disturbers)
        ]
        answers = [answer for some in threads.map(client, range(clients)) for answer in some]
    answers += [answer for one in disturbing for answer in one.result()]
    wall_seconds = time.perf_counter() - began
    return summarise(clients, wall_seconds, answers, recordings), answers


# --- Command line ---------------------------------------------------------------------------------


def row_of(load: Load) -> str:
    rates = (load.done / load.wall_seconds, load.audio_seconds / load.wall_seconds)
    cells = [f"{load.clients}", f"{load.done}", *(f"{rate:.1f}" for rate in rates),
             *(f"{latency:.2f}" for latency in load.latency_seconds),
             *(f"{n}" for n in (load.refused, load.errors, load.lost, load.different))]  # fmt: skip
    return "".join(f"{cell:>11}" for cell in cells)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="address of the server")
    parser.add_argument("audio", nargs="+", type=Path, help="recordings to send")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 64], help="at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each number of clients")
    parser.add_argument("--disturbers", type=int, default=0, help="clients that do harm, besides")
    parser.add_argument("--model", default="base")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_of(arguments)
    target = Target(options.url, options.model, options.api_key)
    recordings = transcribe_alone(target, options.audio)
    if not options.json:
        print("".join(f"{name:>11}" for name in COLUMNS))
    loads, complaints = [], []
    for clients in options.clients:
        result, answers = load(target, recordings, clients, options.seconds, options.disturbers)
        loads.append(result)
        complaints += [a for a in answers if a.status not in (200, *REFUSALS)]
        print(json.dumps(asdict(result)) if options.json else row_of(result), flush=True)
    for answer in complaints[:5]:
        print(f"load_test: {answer.status} {message_of(answer)}", file=sys.stderr)
    sys.exit(not all(result.is_clean for result in loads))


if __name__ == "__main__":
    run_command(main)
