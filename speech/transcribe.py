"""Audio files to transcripts: what a user of the library calls.

``Recogniser.load("base").transcribe("talk.mp3").text`` is what was said in ``talk.mp3``.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from speech.audio import stream_audio
from speech.batching import pack_fast
from speech.checkpoint import DEFAULT_MODEL, Model, load_model
from speech.decode import Hypothesis, greedy, nothing
from speech.decoder import DecoderOptions
from speech.environment import return_free_memory
from speech.errors import AudioError
from speech.features import pad_features
from speech.join import WordJoiner
from speech.precision import AUTO, choose_precision
from speech.read_ahead import read_ahead
from speech.rescore import load_decoder_and_rescorer
from speech.results import NO_LANGUAGE_MODEL
from speech.segment import Detector, Segment, segment_stream, voice_segments
from speech.transcript import Alternative, Transcript, Word
from speech.voice_network import NetworkVoiceDetector, shipped_voice
from speech.words import WordReader
from speech.workers import Workers, default_device, usable_cores

if TYPE_CHECKING:
    from speech.beam_search import BeamDecoder  # loads the compiler, which greedy decoding spares

Source = str | Path
POOL_SECONDS = 320.0  # segments are gathered up to this, sorted by length and batched
# Audio in one pass of the network, padding included. Against half as much, 13 s utterances take a
# quarter less processor time in all, and 0.04 GB more.
BATCH_SECONDS = 160.0
# What a step of the network takes on a CPU, measured in utterances. In a batch it reads all
# weights, for two or for twelve; of one alone, oneDNN multiplies all steps' inputs at once.
_STEP_OVERHEAD = 8.0
_STEP_ALONE = 3.0


def pack_utterances(
    seconds: Sequence[float], threads: int, device: torch.device
) -> list[list[int]]:
    """Return the batches of indices that transcribe utterances fastest, a share to each thread."""
    budget = min(BATCH_SECONDS, sum(seconds) / threads)
    alone = _STEP_ALONE if device.type == "cpu" else 1 + _STEP_OVERHEAD
    return pack_fast(seconds, budget, _STEP_OVERHEAD, alone)


class _Part(NamedTuple):
    """A segment handed out: where it lies in the recording, and what will be heard in it."""

    start_seconds: float
    end_seconds: float
    joins_at_seconds: float | None
    result: Future[list[Hypothesis]]

    @property
    def seconds(self) -> float:
        """How long it is, without what the segment before has heard already."""
        joins_at = self.joins_at_seconds
        return self.end_seconds - (self.start_seconds if joins_at is None else joins_at)

    def teller(self, on_seconds: Callable[[float], None]) -> Callable[[object], None]:
        """What is to be called when it is done."""
        return lambda _: on_seconds(self.seconds)


@dataclass
class _File:
    """A recording on its way: its segments' words come in as batches are done."""

    source: Source
    on_seconds: Callable[[float], None]
    parts: deque[_Part] = field(default_factory=deque)  # whose words are still to be read
    joiner: WordJoiner = field(default_factory=WordJoiner)
    words: list[Word] = field(default_factory=list)
    seconds: float = 0.0
    handed_out_seconds: float = 0.0
    error: AudioError | None = None


class Recogniser:
    """A model at work on a CPU, one thread a core, or on a GPU.

    Each thread takes batches of its own: an LSTM's many small steps gain little from threads that
    must meet after every step.
    """

    def __init__(
        self,
        model: Model,
        threads: int | None = None,
        precision: str = "float32",
        decoder: BeamDecoder | None = None,
        lm_name: str = NO_LANGUAGE_MODEL,
    ) -> None:
        """Take a model; `precision` names the network's arithmetic (`speech.config.PRECISIONS`).

        ``auto`` is what a self-test of this machine found best, ``float32`` if there was none
        (`speech.precision`).

        Decodes greedily without a `decoder`; `lm_name` names the language model of the one given.
        """
        self.model = model
        self.decoder = decoder
        self.lm_name = lm_name
        self.hears_voice = True  # long recordings are cut by the voice network; else by levels
        self.device = default_device()
        model.modules().eval().to(self.device)
        if precision == AUTO:
            precision = choose_precision(model, self.device)
        self.precision = Workers(0, 1, self.device).precision(precision)
        self._reader = WordReader(
            model.tokenizer,
            model.seconds_per_frame,
            model.calibration.word_times,
            model.calibration.confidence.get(lm_name, float),
        )
        self._threads = 1 if self.device.type == "cuda" else threads or usable_cores()
        self._listener = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._pool = ThreadPoolExecutor(
            self._threads, initializer=torch.set_num_threads, initargs=(1,)
        )

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        threads: int | None = None,
        precision: str = "float32",
        options: DecoderOptions | None = None,
    ) -> Recogniser:
        """Return a recogniser with a shipped model's name or a path to a model directory.

        It decodes as the command line does: with the shipped language model if it suits the model,
        unless `options` say otherwise; `speech.decoder.GREEDY` needs none. The first search on a
        machine compiles for half a minute.
        """
        model = load_model(name_or_path)
        options = (options or DecoderOptions()).resolved(model.tokenizer)
        decoder = load_decoder_and_rescorer(options, model.tokenizer)
        return cls(model, threads, precision, decoder, options.lm)

    def transcribe(self, source: Source) -> Transcript:
        """Return the transcript of one audio file. Raises `AudioError` where it cannot be read."""
        (result,) = self.transcribe_many([source])
        if isinstance(result, AudioError):
            raise result
        return result

    def transcribe_many(
        self,
        sources: Iterable[Source],
        jobs: int = 1,
        on_seconds: Callable[[float], None] = lambda seconds: None,
    ) -> Iterator[Transcript | AudioError]:
        """Yield a transcript a file, in order; for a file that cannot be read, its error.

        `jobs` files are read at the same time. `on_seconds` hears, from any thread, of each piece
        of audio that is done, and how long it was.
        Files of any length take constant memory: long ones are cut in pauses (`speech.segment`),
        and what is cut is recognised while more is read.
        """
        handed_out: list[Future[None]] = []
        try:
            yield from self._transcribe(sources, jobs, on_seconds, handed_out)
        finally:  # whoever stops listening should not wait for what nobody will hear
            for work in handed_out:
                work.cancel()

    def _transcribe(
        self,
        sources: Iterable[Source],
        jobs: int,
        on_seconds: Callable[[float], None],
        handed_out: list[Future[None]],
    ) -> Iterator[Transcript | AudioError]:
        """Gather segments, hand them out by poolfuls, and finish files in order."""
        waiting: deque[_File] = deque()
        pool: list[tuple[_File, Segment]] = []
        pooled_seconds = 0.0
        files = (_File(source, on_seconds) for source in sources)
        for file, segments in read_ahead(files, self._segments, jobs):
            waiting.append(file)
            for segment in segments:
                pool.append((file, segment))
                pooled_seconds += self._seconds(segment)
                if pooled_seconds >= POOL_SECONDS:
                    self._await_room(handed_out)
                    handed_out += self._hand_out(pool)
                    pool, pooled_seconds = [], 0.0
                    self._read_words(waiting)
                    return_free_memory()  # else holes between what stays grow with the hours
            while waiting and _is_ready(waiting[0], pool):
                yield self._finish(waiting.popleft())
        handed_out += self._hand_out(pool)
        while waiting:
            yield self._finish(waiting.popleft())

    def _await_room(self, handed_out: list[Future[None]]) -> None:
        """Wait until no more than one batch a thread is left: reading runs one poolful ahead."""
        while len(handed_out) > self._threads:
            wait(handed_out, return_when=FIRST_COMPLETED)
            handed_out[:] = [work for work in handed_out if not work.done()]

    @property
    def precision_name(self) -> str:
        """The arithmetic that the network is computed in."""
        return str(self.precision or torch.float32).removeprefix("torch.")

    @property
    def _sample_rate(self) -> int:
        return self.model.config.features.sample_rate

    def _segments(self, file: _File) -> Iterator[Segment]:
        """Yield a file's segments; an error ends them and stays with the file."""
        try:
            yield from voice_segments(self._read(file), self._sample_rate, self.detector)
        except AudioError as error:
            file.error = error

    def detector(self) -> Detector | None:
        """Return what finds the pauses of a long recording; None: by levels."""
        if not self.hears_voice:
            return None
        # Whoever reads may be a daemon thread, which must not be inside torch when Python ends.
        voice = self._listener.submit(shipped_voice, self._sample_rate).result()
        if voice is None:
            return None
        return NetworkVoiceDetector(
            voice, compute=lambda some: self._listener.submit(voice.probabilities, some).result()
        )

    def _read(self, file: _File) -> Iterator[NDArray[np.float32]]:
        """Yield a file's blocks, and count its seconds."""
        samples = 0
        for block in stream_audio(file.source, self._sample_rate):
            samples += len(block)
            file.seconds = samples / self._sample_rate
            yield block

    def _seconds(self, segment: Segment) -> float:
        return len(segment.samples) / self._sample_rate

    def _hand_out(self, pool: Sequence[tuple[_File, Segment]]) -> list[Future[None]]:
        """Give the gathered segments to the threads in batches of like length, a share to each."""
        results: list[Future[list[Hypothesis]]] = []
        for file, segment in pool:  # only times stay with the file, its samples may go
            end = segment.start_seconds + self._seconds(segment)
            part = _Part(segment.start_seconds, end, segment.joins_at_seconds, Future())
            file.parts.append(part)
            file.handed_out_seconds += part.seconds
            results.append(part.result)
            part.result.add_done_callback(part.teller(file.on_seconds))
        seconds = [self._seconds(segment) for _, segment in pool]
        return [
            self._pool.submit(self._run, [pool[i][1].samples for i in batch],
                              [results[i] for i in batch])
            for batch in pack_utterances(seconds, self._threads, self.device)
        ]  # fmt: skip

    def _run(
        self, samples: list[NDArray[np.float32]], results: list[Future[list[Hypothesis]]]
    ) -> None:
        try:
            for result, log_probs in zip(results, self.log_probs(samples), strict=True):
                result.set_result(self.decode(log_probs))
        except BaseException as error:  # whoever waits for a result must hear of it
            for result in results:
                if not result.done():
                    result.set_exception(error)

    def recognise(self, samples: Sequence[NDArray[np.float32]]) -> list[Hypothesis]:
        """Return the best hypothesis of each sample vector (S,), computed as one batch."""
        return [self.decode(one)[0] for one in self.log_probs(samples)]

    def segment_log_probs(self, source: Source) -> list[NDArray[np.float32]]:
        """Return the log-probs (T', V) of a file's segments, which leave nothing out.

        Up to `speech.segment.MAX_SEGMENT_SECONDS` a file is one segment, as for `transcribe`.
        Raises `AudioError` where it cannot be read.
        """
        blocks = stream_audio(source, self._sample_rate)
        segments = segment_stream(blocks, self._sample_rate)
        return [self.log_probs([segment.samples])[0] for segment in segments]

    def decoder_settings(self) -> dict[str, object]:
        """Return what is to be stored with a result about how it was decoded."""
        if self.decoder is None:
            return {"search": "greedy"}
        hot_words = {hot.phrase: hot.weight for hot in self.decoder.hot_words}
        settings = dataclasses.asdict(self.decoder.settings)
        rescorer = self.decoder.rescorer
        rescoring = {} if rescorer is None else {"rescoring": rescorer.settings()}
        return {"search": "beam", **settings, "hot_words": hot_words, **rescoring}

    def decode(self, log_probs: NDArray[np.float32]) -> list[Hypothesis]:
        """Return the best hypothesis of log-probs (T', V), or as many as the decoder is to find.

        It is empty where there is less evidence of words than the model's calibration asks for.
        """
        best_path = greedy(log_probs)
        seconds = len(log_probs) * self.model.seconds_per_frame
        if not self.model.calibration.least_evidence.is_met(best_path.confidences, seconds):
            return [nothing(log_probs)]
        return self.decoder.decode(log_probs) if self.decoder else [best_path]

    def log_probs(self, samples: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return log-probs (T', V) of each sample vector (S,), computed as one batch."""
        with torch.inference_mode(), torch.autocast(
            self.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None,
            cache_enabled=False,  # each weight is used once: to keep them narrowed gains nothing
        ):  # fmt: skip
            tensors = [torch.from_numpy(one).to(self.device) for one in samples]
            log_mel, lengths = pad_features([self.model.extractor.extract(t) for t in tensors])
            log_probs, output_lengths = self.model.network(log_mel, lengths)
        rows = zip(log_probs.cpu().numpy(), output_lengths.tolist(), strict=True)
        return [row[:length] for row, length in rows]

    def words(self, hypothesis: Hypothesis, start_seconds: float, end_seconds: float) -> list[Word]:
        """Return the words heard from `start_seconds` to `end_seconds` of a recording.

        Times and confidences are those of the model's calibration, as far as it has one.
        """
        return self._reader.words(hypothesis, start_seconds, end_seconds)

    def _read_words(self, files: Iterable[_File]) -> None:
        """Turn what is recognised into words, which take a fraction of a hypothesis's memory."""
        if self._n_best_count > 1:
            return  # texts of all segments will be needed together
        for file in files:
            while file.parts and file.parts[0].result.done():
                part = file.parts.popleft()
                file.words += self._join(file.joiner, part, part.result.result()[0])

    def _join(self, joiner: WordJoiner, part: _Part, hypothesis: Hypothesis) -> list[Word]:
        """Return the words that are settled when those of a part are known."""
        words = self.words(hypothesis, part.start_seconds, part.end_seconds)
        return joiner.add(words, part.joins_at_seconds)

    def _finish(self, file: _File) -> Transcript | AudioError:
        file.on_seconds(file.seconds - file.handed_out_seconds)  # of silence
        if file.error is not None:
            return file.error
        found = [part.result.result() for part in file.parts]
        for part, hypotheses in zip(file.parts, found, strict=True):
            file.words += self._join(file.joiner, part, hypotheses[0])
        words = file.words + file.joiner.finish()
        transcript = Transcript.of_words(str(file.source), file.seconds, words)
        return dataclasses.replace(transcript, n_best=self._n_best(file.parts, found))

    @property
    def _n_best_count(self) -> int:
        return self.decoder.settings.n_best if self.decoder else 1

    def _joined(self, parts: Sequence[_Part], hypotheses: Sequence[Hypothesis]) -> list[Word]:
        """Return the words of a recording from a hypothesis for each of its parts."""
        joiner = WordJoiner()
        words: list[Word] = []
        for part, hypothesis in zip(parts, hypotheses, strict=True):
            words += self._join(joiner, part, hypothesis)
        return words + joiner.finish()

    def _n_best(
        self, parts: Sequence[_Part], found: Sequence[Sequence[Hypothesis]]
    ) -> tuple[Alternative, ...]:
        """Return the best texts of a recording from those of its segments; none of only one."""
        count = self._n_best_count
        if count == 1:
            return ()
        best: list[tuple[float, tuple[Hypothesis, ...]]] = [(0.0, ())]
        for hypotheses in found:
            longer = [
                (score + one.score, (*chosen, one)) for score, chosen in best for one in hypotheses
            ]
            best = heapq.nlargest(count, longer, key=lambda one: one[0])
        texts: dict[str, float] = {}  # at a join, different texts may come to the same
        for score, chosen in best:
            text = " ".join(word.word for word in self._joined(parts, chosen))
            texts.setdefault(text, score)
        return tuple(Alternative(text, score) for text, score in texts.items())


def _is_ready(file: _File, pool: Sequence[tuple[_File, Segment]]) -> bool:
    """Whether nothing of a file waits to be handed out, and all that was is recognised."""
    return all(other is not file for other, _ in pool) and all(
        part.result.done() for part in file.parts
    )
