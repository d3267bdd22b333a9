"""The service: every format, every refusal, live audio; one client's trouble is its own."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from tiny import SAMPLE_RATE, save_tiny_model

pytest.importorskip("fastapi")
pytest.importorskip("starlette.testclient")

from serving import MODELS, babble, hold, running, tiny_app
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from speech.decoder import GREEDY
from speech.http_guard import Access
from speech.live_session import SAMPLE_RATE as LIVE_RATE
from speech.service import Limits
from speech.transcribe import Recogniser
from speech.transcript import WRITERS, Transcript

URL = "/v1/audio/transcriptions"
SECONDS = 40.0  # two segments
WORDY_SEED = 8  # of the weights: the model says spaces as well
LIMITS = Limits(upload_bytes=2 << 20, audio_seconds=100.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), WORDY_SEED)


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture(scope="module")
def recording() -> bytes:
    return wav(babble(SECONDS, SAMPLE_RATE))


@pytest.fixture(scope="module")
def expected(model: Path, recording: bytes, tmp_path_factory: pytest.TempPathFactory) -> Transcript:
    """What `Recogniser` hears in the recording."""
    path = tmp_path_factory.mktemp("audio") / "recording.wav"
    path.write_bytes(recording)
    transcript = Recogniser.load(model, threads=1, options=GREEDY).transcribe(path)
    assert len(transcript.words) > 3
    return transcript


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[TestClient]:
    with TestClient(tiny_app(model, LIMITS)) as client:
        yield client


def post(client: TestClient, file: bytes, **fields: Any) -> Any:
    data = {"model": "tiny"} | fields
    return client.post(URL, files={"file": ("my secret.wav", file)}, data=data)


def assert_refused(response: Any, status: int, code: str) -> str:
    """The answer has OpenAI's form; return its message."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "secret" not in response.text
    return str(error["message"])


# --- Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_written_formats(
    client: TestClient, recording: bytes, expected: Transcript, form: str
) -> None:
    response = post(client, recording, response_format=form)
    assert response.status_code == 200
    assert response.text.rstrip("\n") == WRITERS[form](expected).rstrip("\n")


def test_json_is_the_default(client: TestClient, recording: bytes, expected: Transcript) -> None:
    for name in MODELS:
        content = post(client, recording, model=name, language="en", temperature="0").json()
        assert content == {"text": expected.text, "usage": {"type": "duration", "seconds": 40}}


def test_verbose_json(client: TestClient, recording: bytes, expected: Transcript) -> None:
    form = {"response_format": "verbose_json"}
    content = post(client, recording, **form).json()
    assert content["text"] == " ".join(segment["text"] for segment in content["segments"])
    assert content["text"] == expected.text
    assert content["duration"] == SECONDS
    assert "words" not in content
    wanted = {"timestamp_granularities[]": ["word", "segment"]}
    content = post(client, recording, **form, **wanted).json()
    assert [word["word"] for word in content["words"]] == expected.text.split()
    times = [(word["start"], word["end"], word["confidence"]) for word in content["words"]]
    own = [(word.start, word.end, word.confidence) for word in expected.words]
    np.testing.assert_allclose(times, own, atol=1e-3)
    assert all(0 <= segment["no_speech_prob"] <= 1 for segment in content["segments"])


def test_verbose_json_holds_subtitles_on_request(
    client: TestClient, recording: bytes, expected: Transcript
) -> None:
    form = {"response_format": "verbose_json", "include[]": ["srt", "vtt", "tsv"]}
    subtitles = post(client, recording, **form).json()["subtitles"]
    assert subtitles == {name: WRITERS[name](expected) for name in ("srt", "vtt", "tsv")}


def events(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.split("\n\n") if line]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_stream_of_events(client: TestClient, recording: bytes, expected: Transcript) -> None:
    response = post(client, recording, stream="true")
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(response.text)
    assert len(deltas) > 1  # one a segment
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == expected.text
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert_refused(post(client, b"garbage", stream="true"), 415, "unsupported_audio")


def test_verbose_stream_has_words_with_times(client: TestClient, recording: bytes) -> None:
    """What the page reads: words as they come, at the end all that ``verbose_json`` holds."""
    form = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"],
            "include[]": ["srt", "vtt"]}  # fmt: skip
    *deltas, done = events(post(client, recording, stream="true", **form).text)
    assert [word for delta in deltas for word in delta["words"]] == done["words"]
    assert done.pop("type") == "transcript.text.done"
    assert done == post(client, recording, **form).json()


def test_error_within_a_stream_is_its_last_event(client: TestClient, recording: bytes) -> None:
    """What comes after a good beginning has no status of its own any more."""
    file = io.BytesIO()
    soundfile.write(file, babble(90.0, SAMPLE_RATE), SAMPLE_RATE, format="FLAC")
    content = bytearray(file.getvalue())
    content[-3000:-1000] = bytes(2000)
    *_, last = events(post(client, bytes(content), stream="true").text)
    assert last["error"]["code"] == "damaged_audio"


def test_pauses_are_found_as_on_the_command_line(model: Path, recording: bytes) -> None:
    app = tiny_app(model, LIMITS)
    app.state.speech.service.recogniser.detector = Deaf
    with TestClient(app) as client:
        assert post(client, recording).json()["text"] == ""
        assert post(client, wav(babble(20.0, SAMPLE_RATE))).json()["text"]  # needs no cut


class Deaf:
    """A detector that finds nobody speaking."""

    frame_samples = 100

    def push(self, samples: np.ndarray) -> np.ndarray:
        return np.zeros(len(samples) // self.frame_samples, bool)

    def finish(self) -> np.ndarray:
        return np.zeros(0, bool)


def test_silence_has_no_words(client: TestClient) -> None:
    silence = wav(np.zeros(SAMPLE_RATE, np.float32))
    response = post(client, silence, response_format="verbose_json")
    assert response.status_code == 200


def test_posteriors_are_probabilities(client: TestClient, recording: bytes) -> None:
    response = client.post("/v1/audio/posteriors", files={"file": recording})
    content = response.json()
    table = np.frombuffer(base64.b64decode(content["probabilities"]), np.uint8)
    table = table.reshape(content["frames"], len(content["tokens"]))
    assert content["tokens"][:2] == ["", " "]
    assert len(table) * content["seconds_per_frame"] == pytest.approx(SECONDS, abs=0.1)
    np.testing.assert_allclose(table.sum(1), 255, atol=len(content["tokens"]) / 2)


def test_models_health_metrics(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert [entry["id"] for entry in listed["data"]] == list(MODELS)
    assert client.get("/v1/models/tiny").json() == listed["data"][0]
    assert_refused(client.get("/v1/models/secret"), 404, "model_not_found")
    assert client.get("/health").json()["status"] == "ok"
    before = client.get("/metrics").text
    assert 'speech_requests_total{route="/health",status="200"} 1.0' in before
    assert "speech_batch_utterances_bucket" in before


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "secret"}, 404, "model_not_found"),
        ({"model": ""}, 400, "missing_parameter"),
        ({"language": "de"}, 400, "unsupported_language"),
        ({"response_format": "secret"}, 400, "unsupported_format"),
        ({"temperature": "0.7"}, 400, "unsupported_value"),
        ({"prompt": "secret"}, 400, "unsupported_parameter"),
        ({"secret": "1"}, 400, "unsupported_parameter"),
        ({"stream": "maybe"}, 400, "unsupported_value"),
        ({"stream": "true", "response_format": "srt"}, 400, "unsupported_value"),
        ({"timestamp_granularities[]": "word"}, 400, "unsupported_value"),
        ({"include[]": "srt"}, 400, "unsupported_value"),
        (
            {"timestamp_granularities[]": "secret", "response_format": "verbose_json"},
            400, "unsupported_value",
        ),
        ({"model": ["tiny", "tiny"]}, 400, "repeated_parameter"),
    ],
)  # fmt: skip
def test_what_would_have_no_effect_is_refused(
    client: TestClient, recording: bytes, fields: dict[str, Any], status: int, code: str
) -> None:
    assert_refused(post(client, recording, **fields), status, code)


def test_garbage_is_told_apart(client: TestClient, recording: bytes) -> None:
    assert_refused(post(client, b"secret words"), 415, "unsupported_audio")
    assert_refused(post(client, b""), 415, "unsupported_audio")
    assert_refused(post(client, recording[: len(recording) // 2]), 422, "damaged_audio")
    assert_refused(post(client, wav(np.zeros(101 * SAMPLE_RATE))), 422, "audio_too_long")


def test_malformed_forms(client: TestClient) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert_refused(client.post(URL), 400, "invalid_form")
    assert_refused(client.post(URL, json={}), 400, "invalid_form")
    assert_refused(client.post(URL, content=b"secret", headers=headers), 400, "invalid_form")
    assert_refused(
        client.post(URL, files={"audio": b"x"}, data={"model": "tiny"}), 400, "missing_parameter"
    )
    both = [("file", b"x"), ("file", b"y")]
    assert_refused(client.post(URL, files=both), 400, "invalid_form")
    assert_refused(client.get("/secret"), 404, "http_error")
    assert_refused(client.post("/health"), 405, "http_error")


def test_upload_is_limited_while_it_is_read(client: TestClient) -> None:
    assert_refused(post(client, bytes(LIMITS.upload_bytes + 1)), 413, "file_too_large")
    assert_refused(post(client, bytes(4 * LIMITS.upload_bytes)), 413, "file_too_large")

    def endless() -> Iterator[bytes]:
        """No length is stated. The server stops listening some time past its limit."""
        nonlocal sent
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            sent += 1 << 20
            yield bytes(1 << 20)

    sent = 0
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert_refused(client.post(URL, content=endless(), headers=headers), 413, "file_too_large")


def test_queue_and_clients_are_limited(model: Path, recording: bytes) -> None:
    limits = Limits(concurrency=1, queue=1, per_client=3)
    app = tiny_app(model, limits)
    with TestClient(app) as client, ThreadPoolExecutor(3) as threads:
        opened = hold(app.state.speech.service)
        first = threads.submit(post, client, recording)
        wait_until(lambda: app.state.speech.admission.requests == 1)
        second = threads.submit(post, client, recording)
        wait_until(lambda: app.state.speech.admission.requests == 2)
        response = post(client, recording)
        assert_refused(response, 503, "queue_full")
        assert int(response.headers["retry-after"]) > 0
        app.state.speech.admission._clients["testclient"] += 1
        assert_refused(post(client, recording), 429, "too_many_requests")
        app.state.speech.admission._clients["testclient"] -= 1
        opened.set()
        assert first.result(30).text == second.result(30).text
        assert app.state.speech.admission.requests == 0


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_recognition_time_is_limited(model: Path, recording: bytes) -> None:
    app = tiny_app(model, Limits(request_seconds=0.3))
    with TestClient(app) as client:
        opened = hold(app.state.speech.service)
        assert_refused(post(client, recording), 503, "processing_timeout")
        opened.set()


def test_key_is_asked_for(model: Path, recording: bytes) -> None:
    with TestClient(tiny_app(model, access=Access(api_key="opensesame"))) as client:
        for headers in ({}, {"authorization": "Bearer secret"}, {"authorization": "Bearer "}):
            client.headers = headers
            response = post(client, recording)
            assert_refused(response, 401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.get("/v1/models").status_code == 401
            assert client.get("/metrics").status_code == 401
        assert client.get("/health").json()["needs_key"]
        client.headers = {"authorization": "Bearer opensesame"}
        assert post(client, recording).status_code == 200
        with client.websocket_connect("/v1/audio/live") as socket:
            assert socket.receive_json()["type"] == "ready"
        client.headers = {}
        with client.websocket_connect("/v1/audio/live") as socket:
            socket.send_json({"type": "start", "api_key": "opensesame"})
            assert socket.receive_json()["type"] == "ready"
        with client.websocket_connect("/v1/audio/live") as socket:
            socket.send_json({"type": "start", "api_key": "secret"})
            assert socket.receive_json()["error"]["code"] == "invalid_api_key"


def test_other_sites_and_names_are_refused(model: Path) -> None:
    with TestClient(tiny_app(model, access=Access(hosts=("localhost",)))) as client:
        client.headers = {"host": "localhost:8000"}
        assert client.get("/health").status_code == 200
        own = {"origin": "http://localhost:8000"}
        assert client.get("/health", headers=own).status_code == 200
        other = {"origin": "http://localhost:9000"}
        assert_refused(client.get("/health", headers=other), 403, "origin_not_allowed")
        rebound = {"host": "secret.example:8000"}
        assert_refused(client.get("/health", headers=rebound), 403, "host_not_allowed")
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/v1/audio/live", headers=other).__enter__()


def test_a_fault_of_ours_tells_nothing(
    model: Path, recording: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = tiny_app(model)

    def fail(samples: Any) -> Any:
        raise ValueError("secret")

    with TestClient(app) as client, caplog.at_level(logging.INFO):
        app.state.speech.service.batcher._recognise = fail
        assert_refused(post(client, recording), 500, "internal_error")
    assert "ValueError at " in caplog.text
    assert "secret" not in caplog.text


def test_headers_protect_the_page(client: TestClient) -> None:
    for path in ("/", "/health", "/nowhere"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_uploads_leave_nothing_behind(client: TestClient, recording: bytes) -> None:
    directory = Path(client.app.state.speech.service._directory.name)  # type: ignore[attr-defined]
    post(client, recording)
    post(client, recording, stream="true")
    post(client, b"garbage")
    assert list(directory.iterdir()) == []


# --- Many -----------------------------------------------------------------------------------------


def test_many_clients_get_what_each_gets_alone(client: TestClient) -> None:
    files = [wav(babble(1 + n % 5, SAMPLE_RATE, n)) for n in range(12)]
    form = {"response_format": "text"}
    alone = [post(client, file, **form).text for file in files]
    assert len(set(alone)) > 6
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda file: post(client, file, **form).text, files))
    assert together == alone


def test_garbage_harms_no_other(client: TestClient) -> None:
    good = wav(babble(3.0, SAMPLE_RATE))
    files = [good, b"RIFF" + bytes(100), good, good[:5000], b"", good]
    with ThreadPoolExecutor(6) as threads:
        status = list(threads.map(lambda file: post(client, file).status_code, files))
    assert [code == 200 for code in status] == [True, False, True, False, False, True]
    assert all(code in (200, 415, 422) for code in status)


# --- Live -----------------------------------------------------------------------------------------


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).clip(-32768, 32767).astype("<i2").tobytes()


def listen(client: TestClient, content: bytes, chunk: int = 3201) -> list[dict[str, Any]]:
    """Send PCM in pieces that end within a sample; return what comes back."""
    messages = []
    with client.websocket_connect("/v1/audio/live") as socket:
        assert socket.receive_json() == {"type": "ready", "sample_rate": LIVE_RATE}
        for start in range(0, len(content), chunk):
            socket.send_bytes(content[start : start + chunk])
        socket.send_json({"type": "finish"})
        while not messages or messages[-1]["type"] not in ("done", "error"):
            messages.append(socket.receive_json())
    return messages


def test_live_audio(client: TestClient) -> None:
    messages = listen(client, pcm(babble(6.0, LIVE_RATE)))
    assert messages[-1] == {"type": "done", "duration": 6.0}
    finals = [message for message in messages if message["type"] == "final"]
    assert finals
    words = [word for final in finals for word in final["words"]]
    assert " ".join(final["text"] for final in finals) == " ".join(w["word"] for w in words)
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert starts[-1] <= 6.0


def test_live_audio_without_a_sample(client: TestClient) -> None:
    assert listen(client, b"") == [{"type": "done", "duration": 0.0}]


def test_live_sessions_are_limited(model: Path) -> None:
    app = tiny_app(model, Limits(live_sessions=1, audio_seconds=2.0))
    with TestClient(app) as client:
        with client.websocket_connect("/v1/audio/live") as socket:
            assert socket.receive_json()["type"] == "ready"
            with client.websocket_connect("/v1/audio/live") as second:
                assert second.receive_json()["error"]["code"] == "queue_full"
        wait_until(lambda: app.state.speech.admission.live_sessions == 0)
        messages = listen(client, bytes(5 * 2 * LIVE_RATE))
        assert messages[-1]["error"]["code"] == "audio_too_long"
        wait_until(lambda: app.state.speech.admission.live_sessions == 0)
        with client.websocket_connect("/v1/audio/live") as socket:
            socket.receive_json()
            socket.send_text("secret")
            assert socket.receive_json()["error"]["code"] == "invalid_message"


# --- Over a socket --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with running(tiny_app(model, LIMITS)) as (address, _):
        yield address


def test_openai_client(address: str, recording: bytes, expected: Transcript) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    create = client.audio.transcriptions.create
    file = ("talk.wav", recording)
    assert [entry.id for entry in client.models.list()] == list(MODELS)
    assert create(file=file, model="whisper-1").text == expected.text
    for form in ("text", "srt", "vtt"):
        answer = create(file=file, model="tiny", response_format=form)
        assert answer.rstrip("\n") == WRITERS[form](expected).rstrip("\n")
    verbose = create(file=file, model="tiny", language="en", response_format="verbose_json",
                     timestamp_granularities=["word", "segment"])  # fmt: skip
    assert [word.word for word in verbose.words] == expected.text.split()
    assert verbose.duration == SECONDS
    assert verbose.segments[0].start >= 0
    deltas = list(create(file=file, model="tiny", stream=True))
    assert "".join(one.delta for one in deltas[:-1]) == deltas[-1].text == expected.text
    with pytest.raises(openai.NotFoundError):
        create(file=file, model="nothing")
    with pytest.raises(openai.UnprocessableEntityError, match="truncated"):
        create(file=("talk.wav", recording[:9999]), model="tiny")
    with pytest.raises(openai.APIStatusError) as caught:
        create(file=("talk.wav", bytes(LIMITS.upload_bytes + 1)), model="tiny")
    assert caught.value.status_code == 413


def test_hang_up_harms_no_other(model: Path, recording: bytes) -> None:
    app = tiny_app(model, LIMITS)
    with running(app) as (address, _):
        state = app.state.speech
        opened = hold(state.service)
        parts = urlsplit(address)
        body = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\ntiny\r\n--x\r\n'
        body += b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        body += recording + b"\r\n--x--\r\n"
        head = f"POST {URL} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: {len(body)}\r\n"
        head += "content-type: multipart/form-data; boundary=x\r\n\r\n"
        for sent in (body, body[:1000]):  # gone while it is recognised; while it is uploaded
            with socket.create_connection((parts.hostname, parts.port)) as connection:
                connection.sendall(head.encode() + sent)
                wait_until(lambda: state.admission.requests == 1)
                time.sleep(0.2)
            wait_until(lambda: state.admission.requests == 0)
        opened.set()
        httpx = pytest.importorskip("httpx2")
        answer = httpx.post(address + URL, files={"file": recording}, data={"model": "tiny"},
                            timeout=30)  # fmt: skip
        assert answer.status_code == 200
        assert "speech_hang_ups_total 2.0" in httpx.get(address + "/metrics").text


def test_shutdown_finishes_what_was_begun(model: Path, recording: bytes) -> None:
    httpx = pytest.importorskip("httpx2")
    websockets = pytest.importorskip("websockets.sync.client")
    app = tiny_app(model, LIMITS)
    with running(app) as (address, server), ThreadPoolExecutor(1) as threads:
        opened = hold(app.state.speech.service)
        upload = threads.submit(httpx.post, address + URL, files={"file": recording},
                                data={"model": "tiny"}, timeout=30)  # fmt: skip
        wait_until(lambda: app.state.speech.admission.requests == 1)
        with websockets.connect(address.replace("http", "ws") + "/v1/audio/live") as socket:
            assert json.loads(socket.recv())["type"] == "ready"
            socket.send(pcm(babble(2.0, LIVE_RATE)))
            time.sleep(0.2)
            server.should_exit = True
            wait_until(lambda: app.state.speech.admission.draining.is_set())
            opened.set()
            messages = [json.loads(message) for message in socket]
        assert messages[-1] == {"type": "done", "duration": 2.0}
        assert upload.result(30).status_code == 200
        assert upload.result().json()["text"]
