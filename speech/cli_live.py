"""Commands for speech as it comes: a stream of samples, a microphone, what live results cost."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from speech.cli_decoding import load_recogniser, takes_decoder_options
from speech.cli_options import JsonOption, ModelOption
from speech.errors import SpeechError
from speech.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speech.decoder import DecoderOptions
    from speech.live import Update
    from speech.transcribe import Recogniser

STDIN = Path("-")
STDIN_RATE = 16000  # Hz, of 16-bit little-endian mono samples
PIECE_SECONDS = 0.1
_CLEAR = "\r\x1b[K"  # to the beginning of the line, which is emptied

UpdatesOption = Annotated[bool, typer.Option("--json", help="A JSON object for each update.")]


def stream_file(recogniser: Recogniser, source: Path, as_json: bool) -> None:
    """Transcribe a file, or samples on stdin, and show results as they come."""
    from speech.audio import stream_audio

    rate = recogniser.model.config.features.sample_rate
    if source == STDIN:
        show(recogniser, pcm_blocks(sys.stdin.buffer, rate), as_json)
    else:
        show(recogniser, stream_audio(source, rate, PIECE_SECONDS), as_json)


def show(recogniser: Recogniser, blocks: Iterable[NDArray[np.float32]], as_json: bool) -> None:
    """Print the updates of live audio: finals on lines of their own, partials where they fit.

    On a terminal a partial result stands on the last line until its final one takes its place, the
    words that may still change dimmed; elsewhere only JSON has partial results.
    """
    from speech.streaming import StreamingRecogniser

    live = StreamingRecogniser(recogniser)
    tell: Callable[[Update], None] = _print_json if as_json else _print_text
    for block in blocks:
        for update in live.push(block):
            tell(update)
    for update in live.finish():
        tell(update)


@takes_decoder_options
def listen(
    model: ModelOption = "base",
    as_json: UpdatesOption = False,
    device: Annotated[str | None, typer.Option(help="Name or number of the input device.")] = None,
    *,
    decoding: DecoderOptions,
) -> None:
    r"""Transcribe what the microphone hears until Ctrl-C (extra \[microphone])."""
    recogniser = load_recogniser(model, 1, decoding)
    show(recogniser, _microphone(recogniser.model.config.features.sample_rate, device), as_json)


@takes_decoder_options
def measure_stream(
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    model: ModelOption = "base",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N utterances.")] = None,
    chunk: Annotated[
        float | None, typer.Option(min=0, max=60, help="Seconds, of a bidirectional model.")
    ] = None,
    lookahead: Annotated[
        float | None, typer.Option(min=0, max=60, help="Seconds, of the same.")
    ] = None,
    as_json: JsonOption = False,
    *,
    decoding: DecoderOptions,
) -> None:
    """Measure live results at real-time pace: latency, words taken back, compute, error rates."""
    from speech.evaluate import read_manifests
    from speech.measure_stream import measure_stream as run
    from speech.network_stream import CHUNK_SECONDS, LOOKAHEAD_SECONDS
    from speech.streaming import StreamingRecogniser

    utterances = [utterance for _, utterance in read_manifests(manifest, limit)]
    recogniser = load_recogniser(model, 1, decoding)
    latency = (CHUNK_SECONDS if chunk is None else chunk,
               LOOKAHEAD_SECONDS if lookahead is None else lookahead)  # fmt: skip
    with progress_bar("streaming", sum(one.duration for one in utterances)) as advance:
        figures = run(recogniser, utterances, lambda: StreamingRecogniser(recogniser, *latency),
                      lambda one: advance(one.duration)).to_dict()  # fmt: skip
    facts = {"model": model, "lm": recogniser.lm_name, "chunk": latency[0], "lookahead": latency[1],
             "bidirectional": recogniser.model.config.model.bidirectional}  # fmt: skip
    if as_json:
        print(json.dumps(facts | figures))
        return
    _print_figures(facts, figures)


def _print_figures(facts: dict[str, Any], figures: dict[str, float | None]) -> None:
    def seconds(name: str) -> str:
        value = figures[name]
        return "-" if value is None else f"{value:.2f} s"

    words, retracted = figures["words"] or 0, figures["retracted"] or 0
    if facts["bidirectional"]:
        print(f"chunks of {facts['chunk']} s, {facts['lookahead']} s seen ahead")
    print(
        f"first result after the first word's end: median {seconds('first_latency_median')}, "
        f"95 % within {seconds('first_latency_95')}\n"
        f"a word in its place after its end: median {seconds('word_latency_median')}, "
        f"95 % within {seconds('word_latency_95')}\n"
        f"words taken back: {retracted} for {words} final words "
        f"({retracted / max(1, words):.1%})\n"
        f"WER streamed {figures['wer_streamed']:.2%}, as a whole {figures['wer_offline']:.2%}\n"
        f"{figures['audio_seconds']:.1f} s of audio, real-time factor "
        f"{figures['real_time_factor']:.4f} on one thread, model {facts['model']}, "
        f"lm {facts['lm']}"
    )


def _print_json(update: Update) -> None:
    from speech.openai_format import word_object

    kind = "final" if update.is_final else "partial"
    print(json.dumps({
        "type": kind, "start": round(update.start, 3), "end": round(update.end, 3),
        "text": update.text, "stable": update.stable,
        "words": [word_object(word) for word in update.words],
    }, ensure_ascii=False), flush=True)  # fmt: skip


def _print_text(update: Update) -> None:
    if not sys.stdout.isatty():
        if update.is_final:
            print(update.text, flush=True)
    elif update.is_final:
        print(_CLEAR + update.text, flush=True)
    else:
        words = [word.word for word in update.words]
        sure, unsure = " ".join(words[: update.stable]), " ".join(words[update.stable :])
        print(f"{_CLEAR}{sure} \x1b[2m{unsure}\x1b[22m", end="", flush=True)


def pcm_blocks(stream: BinaryIO, rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield what comes on a stream of 16-bit little-endian mono samples at STDIN_RATE."""
    import numpy as np

    from speech.audio import resampled

    def pieces() -> Iterator[NDArray[np.float32]]:
        rest = b""
        while data := stream.read1(int(PIECE_SECONDS * STDIN_RATE) * 2):  # type: ignore[attr-defined]
            data = rest + data
            whole = len(data) - len(data) % 2
            rest = data[whole:]
            yield np.frombuffer(data[:whole], "<i2").astype(np.float32) / np.float32(32768)

    return resampled(pieces(), STDIN_RATE, rate)


def _microphone(rate: int, device: str | None) -> Iterator[NDArray[np.float32]]:
    """Yield what the microphone hears until Ctrl-C."""
    try:
        import sounddevice
    except ImportError:
        needed = "pip install 'lstm-speech[microphone]'"
        raise SpeechError(f"listening needs sounddevice: {needed}") from None
    except OSError as error:
        raise SpeechError(f"listening needs the PortAudio library: {error}") from error
    blocks: queue.Queue[NDArray[np.float32]] = queue.Queue()
    chosen = int(device) if device and device.isdecimal() else device

    def take(samples: NDArray[np.float32], *_: object) -> None:
        blocks.put(samples[:, 0].copy())

    try:
        with sounddevice.InputStream(
            rate, int(PIECE_SECONDS * rate), chosen, 1, "float32", callback=take
        ):
            print("speech: listening; Ctrl-C ends", file=sys.stderr, flush=True)
            while True:
                yield blocks.get()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SpeechError(f"cannot listen: {error}") from error
    except KeyboardInterrupt:
        return
