"""What FFmpeg reads (through PyAV, whose wheels carry it): mp3, m4a, aac, webm, mp4 and others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from speech.audio_source import (
    READABLE,
    Decoder,
    Samples,
    describe,
    is_mpeg_frame,
    nameless,
)
from speech.errors import AudioError, AudioFormatError, reason_of

# FFmpeg's demuxers that hold audio in the file itself. Playlists (hls, concat, dash, ...) are left
# out: they would make it open further files and addresses that the source names.
_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mp3,"
    "mpeg,mpegts,ogg,tta,w64,wav,wv"
)
_STATES_DURATION = ("mp4", "webm", "mp3", "flac", "wav", "asf", "avi")
_DURATION_SLACK_SECONDS = 0.1  # containers round, and count the encoder's padding differently
_SHORT_NAMES = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "webm"}  # of FFmpeg's demuxers


def open_container(file: BinaryIO, name: str, head: bytes) -> av.container.InputContainer:
    """The opened container, or an AudioFormatError that says what the file looks like."""
    try:
        return av.open(nameless(file), "r", options={"format_whitelist": _DEMUXERS})
    except (av.FFmpegError, ValueError) as error:
        found = describe(head)
        raise AudioFormatError(
            f"{name}: cannot be read: found {found}; needed {READABLE}"
        ) from error


def container_decoder(container: av.container.InputContainer, name: str, file: BinaryIO) -> Decoder:
    """The container's first audio track with its samples."""
    form = _SHORT_NAMES.get(container.format.name, container.format.name)
    if not container.streams.audio or container.streams.audio[0].codec_context is None:
        raise AudioFormatError(f"{name}: {form} without an audio track that can be decoded")
    stream = container.streams.audio[0]
    frames = _container_frames(container, stream, f"{name}: damaged or truncated {form}")
    first = next(frames, None)
    if first is None:
        raise AudioError(f"{name}: {form} without samples")
    # The first frame knows better than the header: HE-AAC states half its rate.
    stated_seconds = _stated_seconds(container, stream, file) if form in _STATES_DURATION else None
    codec = stream.codec_context.codec.canonical_name
    return Decoder(
        name=name,
        format=form if codec == form else f"{form} {codec}",
        sample_rate=first.sample_rate,
        channels=len(first.layout.channels),
        stated_frames=None if stated_seconds is None else round(stated_seconds * first.sample_rate),
        slack_frames=round(_DURATION_SLACK_SECONDS * first.sample_rate),
        blocks=_frame_blocks(first, frames, name),
    )


def _stated_seconds(
    container: av.container.InputContainer, stream: av.AudioStream, file: BinaryIO
) -> float | None:
    """The audio's duration where the header states it, not where FFmpeg guesses it."""
    if container.format.name == "mp3" and not _has_frame_count(file):
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None or len(container.streams) > 1:
        return None  # the container's duration is that of its longest track
    return (container.duration - max(0, container.start_time or 0)) / av.time_base


def _has_frame_count(file: BinaryIO) -> bool:
    """Whether the first mp3 frame is a Xing, Info or VBRI tag, which counts the others."""
    position = file.tell()
    file.seek(0)
    head = file.read(10)
    if head.startswith(b"ID3") and len(head) == 10:  # its size: four bytes of seven bits
        file.seek(
            10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        )
    else:
        file.seek(0)
    frame = file.read(256)
    file.seek(position)
    return any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def _container_frames(
    container: av.container.InputContainer, stream: av.AudioStream, complaint: str
) -> Iterator[av.AudioFrame]:
    seconds = 0.0
    is_mp3 = container.format.name == "mp3"
    try:
        for packet in container.demux(stream):
            if is_mp3 and packet.size and not is_mpeg_frame(bytes(packet)[:2]):
                continue  # a tag or padding between frames, usual where files were joined
            for frame in packet.decode():
                yield frame
                seconds += frame.samples / frame.sample_rate
    except av.FFmpegError as error:
        raise AudioError(f"{complaint} near {seconds:.1f} s: {reason_of(error)}") from error


def _frame_blocks(
    first: av.AudioFrame, rest: Iterator[av.AudioFrame], name: str
) -> Iterator[Samples]:
    rate, channels = first.sample_rate, len(first.layout.channels)
    yield _frame_samples(first)
    for frame in rest:
        if (frame.sample_rate, len(frame.layout.channels)) != (rate, channels):
            raise AudioError(
                f"{name}: changes from {rate} Hz, {channels} channels to {frame.sample_rate} Hz, "
                f"{len(frame.layout.channels)} channels midway; needed one format throughout"
            )
        yield _frame_samples(frame)


def _frame_samples(frame: av.AudioFrame) -> Samples:
    """Samples (n, channels) float32 of a frame in any of FFmpeg's sample formats."""
    array: NDArray[Any] = frame.to_ndarray()  # planar: (channels, n), packed: (1, n * channels)
    columns = array.T if frame.format.is_planar else array.reshape(-1, len(frame.layout.channels))
    if columns.dtype == np.uint8:
        return ((columns.astype(np.float32) - 128) / 128).astype(np.float32)
    if np.issubdtype(columns.dtype, np.integer):
        scale = 2.0 ** (8 * columns.dtype.itemsize - 1)
        return (columns / scale).astype(np.float32)
    return columns.astype(np.float32)
