"""Files, bytes and streams to samples: mono float32 at the model's sample rate.

libsndfile (through ``soundfile``) reads wav, flac, ogg/opus, aiff, au, caf and NIST sphere;
FFmpeg (through PyAV, whose wheels carry it) reads mp3, m4a, aac, webm, mp4 and other containers.
Mp3 goes to FFmpeg because libsndfile's mpg123 writes warnings to the process's stderr and decodes
some low-rate files wrongly. Channels are mixed by their mean, rates are converted by soxr (HQ).
``load_audio`` and ``stream_audio`` run the same blocks through the same code, so that their
samples are equal bit for bit. Nothing is clipped: float files and lossy decoders may go past
[-1, 1]. A file that is broken or ends before its header says is an AudioError, never silence.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from speech.audio_libsndfile import open_soundfile, soundfile_decoder
from speech.audio_source import (
    HEAD_BYTES,
    READABLE,
    Decoder,
    Samples,
    Source,
    check_last_ogg_page,
    is_mp3,
    opened,
)
from speech.errors import AudioError, AudioFormatError

RESAMPLER_QUALITY = "HQ"  # soxr's 20 bit setting
FULL_SCALE = 1 << 15  # of 16-bit integers
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 1_000_000  # anything else is a damaged header


@dataclass(frozen=True)
class Audio:
    """Samples (S,) float32 mono at ``sample_rate``, and what the source was before."""

    samples: Samples
    sample_rate: int  # Hz
    source_sample_rate: int  # Hz
    source_channels: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class AudioInfo:
    """What a source says about itself: seconds, Hz, channels and a name such as ``wav pcm_16``."""

    duration: float
    sample_rate: int
    channels: int
    format: str


def load_audio(source: Source, sample_rate: int) -> Audio:
    """The whole of ``source`` as mono samples at ``sample_rate`` Hz.

    ``source`` is a path, the bytes of a file, or a binary file object (read from its start, left
    open). Raises AudioError when it cannot be read in full, holds no samples or non-finite ones.
    """
    with _decoder(source) as decoder:
        samples = np.concatenate(list(_resample(_mix(decoder), decoder, sample_rate)))
        return Audio(samples, sample_rate, decoder.sample_rate, decoder.channels)


def stream_audio(
    source: Source, sample_rate: int, block_seconds: float = 30.0
) -> Iterator[Samples]:
    """Blocks of ``block_seconds`` (the last may be shorter) in constant memory.

    Joined they equal ``load_audio(source, sample_rate).samples`` bit for bit. A damaged source
    raises AudioError where the damage is met, after the good blocks before it.
    """
    block_samples = max(1, round(block_seconds * sample_rate))
    with _decoder(source) as decoder:
        yield from _reblock(_resample(_mix(decoder), decoder, sample_rate), block_samples)


def to_mp3(samples: Samples, sample_rate: int) -> bytes:
    """The samples as an MP3 file, which every browser plays: about 30 kB for 10 s at 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="MP3", subtype="MPEG_LAYER_III")
    return file.getvalue()


def write_flac(path: Path, samples: Samples, sample_rate: int) -> None:
    """Write the samples as 16-bit flac; the file appears whole or not at all.

    Samples that were decoded from 16 bits become the same 16 bits; louder ones than 1 are clipped.
    """
    integers = np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        soundfile.write(partial, integers, sample_rate, format="FLAC", subtype="PCM_16")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def probe_audio(source: Source) -> AudioInfo:
    """Duration and format of ``source`` from its header.

    Formats whose header does not state a duration (mp3 without a Xing tag, raw aac, live webm) are
    decoded and counted. Raises AudioError like ``load_audio``, for what the header can show.
    """
    with _decoder(source) as decoder:
        frames = decoder.stated_frames
        if frames is None:
            frames = sum(len(block) for block in _mix(decoder))
        if frames == 0:
            raise AudioError(f"{decoder.name}: {decoder.format} without samples")
        return AudioInfo(
            frames / decoder.sample_rate, decoder.sample_rate, decoder.channels, decoder.format
        )


@contextmanager
def _decoder(source: Source) -> Iterator[Decoder]:
    """The source with its samples, decoded by whichever library reads it."""
    with opened(source) as (file, name):
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if not head:
            raise AudioFormatError(f"{name}: empty, 0 bytes; needed {READABLE}")
        if head.startswith(b"OggS"):
            check_last_ogg_page(file, name)
        file.seek(0)
        reader = None if is_mp3(head) else open_soundfile(file, name, head)
        if reader is not None:
            with reader:
                yield _checked(soundfile_decoder(reader, name, head))
        else:
            # Loads FFmpeg, which most recordings do without.
            from speech.audio_ffmpeg import container_decoder, open_container

            file.seek(0)
            with open_container(file, name, head) as container:
                yield _checked(container_decoder(container, name, file))


def _checked(decoder: Decoder) -> Decoder:
    """The decoder; AudioError for a sample rate at which a small file would swell to days."""
    rate = decoder.sample_rate
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise AudioError(
            f"{decoder.name}: {decoder.format} with a sample rate of {rate} Hz; "
            f"needed {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz"
        )
    return decoder


def _mix(decoder: Decoder) -> Iterator[Samples]:
    """Mono blocks (n,), checked: finite, at least one sample, as many as the header states."""
    frames = 0
    for block in decoder.blocks:
        mono = block[:, 0] if decoder.channels == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            at = (frames + int(np.argmin(np.isfinite(mono)))) / decoder.sample_rate
            raise AudioError(f"{decoder.name}: NaN or infinite sample at {at:.3f} s")
        frames += len(mono)
        yield np.ascontiguousarray(mono)
    if frames == 0:
        raise AudioError(f"{decoder.name}: {decoder.format} without samples")
    if decoder.stated_frames is not None and frames + decoder.slack_frames < decoder.stated_frames:
        raise AudioError(
            f"{decoder.name}: truncated {decoder.format}: the header states "
            f"{decoder.stated_frames} samples a channel, {frames} are there"
        )


def _resample(mono: Iterator[Samples], decoder: Decoder, sample_rate: int) -> Iterator[Samples]:
    """The blocks at ``sample_rate``; at least one sample comes out, or an AudioError."""
    samples = 0
    for block in resampled(mono, decoder.sample_rate, sample_rate):
        samples += len(block)
        yield block
    if samples == 0:
        raise AudioError(f"{decoder.name}: shorter than one sample at {sample_rate} Hz")


def resampled(blocks: Iterator[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Mono blocks (n,) at another rate in Hz, as a stream; they need not be as long."""
    if from_rate == to_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(
        from_rate, to_rate, 1, dtype="float32", quality=RESAMPLER_QUALITY
    )
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _reblock(blocks: Iterator[Samples], block_samples: int) -> Iterator[Samples]:
    pending: list[Samples] = []
    held = 0
    for block in blocks:
        pending.append(block)
        held += len(block)
        if held < block_samples:
            continue
        joined = np.concatenate(pending)
        whole = held - held % block_samples
        for start in range(0, whole, block_samples):
            yield joined[start : start + block_samples]
        pending, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(pending)
