"""Audio: every format against the chirp that was encoded, every kind of broken file by its line."""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import av
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speech.audio import (
    _reblock,
    load_audio,
    probe_audio,
    stream_audio,
)
from speech.audio_libsndfile import READ_FRAMES
from speech.audio_source import Samples
from speech.errors import AudioError

SECONDS = 2.0
RATE_HZ = 16000


def chirp(sample_rate: int, seconds: float = SECONDS, channels: int = 1) -> NDArray[np.float32]:
    """(n, channels) from 200 to 1400 Hz: any shift in time lowers its correlation with itself."""
    t = np.arange(round(sample_rate * seconds)) / sample_rate
    sweep = 0.5 * np.sin(2 * np.pi * (200 * t + 600 / seconds * t * t))
    return np.repeat(sweep[:, None], channels, axis=1).astype(np.float32)


def encode_soundfile(form: str, subtype: str, sample_rate: int, channels: int = 1) -> bytes:
    file = io.BytesIO()
    samples = chirp(sample_rate, channels=channels)
    soundfile.write(file, samples, sample_rate, format=form, subtype=subtype)
    return file.getvalue()


def encode_container(
    form: str, codec: str, sample_rate: int, options: dict[str, str] | None = None
) -> bytes:
    """Stereo chirp in one of FFmpeg's containers."""
    path = Path(tempfile.mkdtemp()) / "file"  # FFmpeg reads it back to put the index first
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=sample_rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(chirp(sample_rate, channels=2).T), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts = sample_rate, 0
        stream.codec_context.open()
        resampler = av.AudioResampler(
            stream.format, stream.layout, sample_rate, stream.codec_context.frame_size or 0
        )
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    content = path.read_bytes()
    shutil.rmtree(path.parent)
    return content


def correlation(samples: Samples, shift: int = 0) -> float:
    expected = chirp(RATE_HZ)[:, 0]
    middle = slice(3000, len(expected) - 3000)
    moved = samples[middle.start + shift : middle.stop + shift]
    return float(np.corrcoef(expected[middle], moved)[0, 1])


SOUNDFILE_FORMATS = [
    ("WAV", "PCM_U8", 16000, 1),
    ("WAV", "PCM_16", 16000, 1),
    ("WAV", "PCM_24", 44100, 2),
    ("WAV", "PCM_32", 48000, 1),
    ("WAV", "FLOAT", 16000, 2),
    ("WAV", "DOUBLE", 22050, 1),
    ("WAV", "ALAW", 8000, 1),
    ("WAV", "ULAW", 8000, 2),
    ("RF64", "PCM_16", 16000, 1),
    ("FLAC", "PCM_16", 16000, 1),
    ("FLAC", "PCM_24", 48000, 2),
    ("OGG", "VORBIS", 44100, 2),
    ("OGG", "OPUS", 48000, 1),
    ("OGG", "OPUS", 16000, 1),
    ("MP3", "MPEG_LAYER_III", 44100, 2),
    ("MP3", "MPEG_LAYER_III", 16000, 1),
    ("AIFF", "PCM_16", 22050, 1),
    ("NIST", "PCM_16", 16000, 1),
    ("NIST", "ULAW", 8000, 1),
    ("AU", "PCM_16", 11025, 1),
    ("CAF", "ALAC_16", 16000, 1),
]


@pytest.mark.parametrize(("form", "subtype", "sample_rate", "channels"), SOUNDFILE_FORMATS)
def test_soundfile_formats(form: str, subtype: str, sample_rate: int, channels: int) -> None:
    content = encode_soundfile(form, subtype, sample_rate, channels)
    audio = load_audio(content, RATE_HZ)
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape == (SECONDS * RATE_HZ,)
    assert audio.duration == SECONDS
    assert correlation(audio.samples) > 0.999
    assert (audio.source_sample_rate, audio.source_channels) == (sample_rate, channels)
    info = probe_audio(content)
    assert (info.duration, info.sample_rate, info.channels) == (SECONDS, sample_rate, channels)
    assert info.format.split()[0] == form.lower()


CONTAINERS = [  # format, codec, rate, options, most samples too long, shift of the sound (16 kHz)
    ("ipod", "aac", 44100, {}, 1024, 0),
    ("mp4", "aac", 48000, {"movflags": "faststart"}, 1024, 0),
    ("webm", "libopus", 48000, {}, 0, 0),
    ("webm", "libopus", 48000, {"live": "1"}, 0, 0),
    ("matroska", "flac", 44100, {}, 0, 0),
    ("matroska", "pcm_u8", 44100, {}, 0, 0),
    ("mov", "pcm_s16be", 44100, {}, 0, 0),
    (
        "adts",
        "aac",
        44100,
        {},
        1024,
        372,
    ),  # raw aac says nothing of the encoder's 1,024 at 44.1 kHz
    ("mpegts", "aac", 44100, {}, 1024, 372),
    ("mp2", "mp2", 44100, {}, 1024, 175),
    ("mp3", "libmp3lame", 44100, {"write_xing": "0"}, 1024, 401),  # no count, and no delay stated
    ("wav", "libmp3lame", 44100, {}, 1024, 401),  # a codec in a wav that libsndfile declines
]


@pytest.mark.parametrize(("form", "codec", "rate", "options", "longer", "shift"), CONTAINERS)
def test_containers(
    form: str, codec: str, rate: int, options: dict[str, str], longer: int, shift: int
) -> None:
    content = encode_container(form, codec, rate, options)
    audio = load_audio(content, RATE_HZ)
    assert SECONDS * RATE_HZ <= len(audio.samples) <= SECONDS * RATE_HZ + longer
    assert np.abs(audio.samples).max() == pytest.approx(0.5, abs=0.06)
    assert correlation(audio.samples, shift) > 0.98  # the encoder's delay is no whole number
    assert (audio.source_sample_rate, audio.source_channels) == (rate, 2)
    assert probe_audio(content).duration == pytest.approx(audio.duration, abs=0.03)


def test_paths_bytes_and_file_objects_are_equal(tmp_path: Path) -> None:
    content = encode_soundfile("FLAC", "PCM_16", 44100)
    path = tmp_path / "größer.flac"
    path.write_bytes(content)
    expected = load_audio(content, RATE_HZ).samples
    np.testing.assert_array_equal(load_audio(path, RATE_HZ).samples, expected)
    np.testing.assert_array_equal(load_audio(str(path), RATE_HZ).samples, expected)
    with path.open("rb") as file:
        file.read(100)  # is read from its start all the same
        np.testing.assert_array_equal(load_audio(file, RATE_HZ).samples, expected)
        assert not file.closed
        np.testing.assert_array_equal(load_audio(file, RATE_HZ).samples, expected)


class Pipe(io.RawIOBase):
    """What a program's standard input is: it can be read once, and not sought in."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


@pytest.mark.parametrize("form", ["WAV", "MP3"])
def test_a_pipe_is_read(form: str) -> None:
    content = encode_soundfile(form, {"WAV": "PCM_16", "MP3": "MPEG_LAYER_III"}[form], 16000)
    pipe: BinaryIO = io.BufferedReader(Pipe(content))
    expected = load_audio(content, RATE_HZ).samples
    np.testing.assert_array_equal(load_audio(pipe, RATE_HZ).samples, expected)


def test_the_name_decides_nothing(tmp_path: Path) -> None:
    for suffix in (".raw", ".txt", ".mp3", ".au"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encode_soundfile("WAV", "PCM_16", 16000))
        assert load_audio(path, RATE_HZ).duration == SECONDS
    for suffix in (".raw", ".flac", ".mp3", ".wav", ".aac"):
        path = tmp_path / f"b{suffix}"
        path.write_text("It was not to be.")
        with pytest.raises(AudioError, match="found text: 'It was not to be"):
            load_audio(path, RATE_HZ)


# ---------------------------------------------------------------------------- samples


def wav(samples: Any, sample_rate: int = RATE_HZ, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples), sample_rate, format="WAV", subtype=subtype)
    return file.getvalue()


def test_channels_are_mixed_by_their_mean() -> None:
    samples = np.array([[0.5, 0.1, 0.3], [-0.5, 0.5, 0.0], [1.0, 1.0, 1.0]], np.float32)
    audio = load_audio(wav(samples), RATE_HZ)
    np.testing.assert_allclose(audio.samples, [0.3, 0.0, 1.0], atol=1e-7)
    assert audio.source_channels == 3


def test_full_scale_of_every_depth() -> None:
    for subtype, step in (("PCM_U8", 7), ("PCM_16", 15), ("PCM_24", 23), ("PCM_32", 31)):
        samples = load_audio(wav([0.5, -1.0, 0.0], subtype=subtype), RATE_HZ).samples
        np.testing.assert_allclose(samples, [0.5, -1.0, 0.0], atol=2.0**-step)


def test_float_samples_past_one_are_kept() -> None:
    samples = [0.0, 1.5, -3.0]
    np.testing.assert_array_equal(load_audio(wav(samples), RATE_HZ).samples, samples)


@pytest.mark.parametrize("source_rate", [8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000])
def test_resampling_is_librosas_soxr_hq(source_rate: int) -> None:
    rng = np.random.default_rng(source_rate)
    samples = rng.uniform(-0.5, 0.5, 3 * READ_FRAMES + 321).astype(np.float32)
    expected = librosa.resample(
        samples, orig_sr=source_rate, target_sr=RATE_HZ, res_type="soxr_hq", scale=False
    )
    found = load_audio(wav(samples, source_rate), RATE_HZ).samples
    assert abs(len(found) - len(expected)) <= 1  # librosa rounds up, soxr to the nearest
    shortest = min(len(found), len(expected))
    np.testing.assert_allclose(found[:shortest], expected[:shortest], atol=1e-6)


@example(1, 44100)
@given(st.integers(1, 5000), st.sampled_from([8000, 11025, 16000, 44100]))
@settings(deadline=None, max_examples=50)
def test_resampled_length_is_the_rounded_one(samples: int, source_rate: int) -> None:
    exact = samples * RATE_HZ / source_rate
    content = wav(np.ones(samples), source_rate)
    if exact < 0.5:
        with pytest.raises(AudioError, match="shorter than one sample at 16000 Hz"):
            load_audio(content, RATE_HZ)
    else:
        assert abs(len(load_audio(content, RATE_HZ).samples) - exact) <= 0.5


@pytest.fixture(scope="module")
def streamed_contents() -> list[bytes]:
    return [
        encode_soundfile("WAV", "PCM_16", 16000),
        encode_soundfile("FLAC", "PCM_16", 44100, 2),
        encode_soundfile("OGG", "OPUS", 48000),
        encode_soundfile("MP3", "MPEG_LAYER_III", 22050),
        encode_container("ipod", "aac", 44100),
    ]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_stream_equals_load_bit_for_bit(streamed_contents: list[bytes], data: Any) -> None:
    content = data.draw(st.sampled_from(streamed_contents))
    sample_rate = data.draw(st.sampled_from([8000, 16000, 22050]))
    block_seconds = data.draw(st.floats(0.001, 3.0))
    blocks = list(stream_audio(content, sample_rate, block_seconds))
    expected = load_audio(content, sample_rate).samples
    assert np.concatenate(blocks).tobytes() == expected.tobytes()
    assert {len(block) for block in blocks[:-1]} <= {round(block_seconds * sample_rate)}
    assert 0 < len(blocks[-1]) <= max(1, round(block_seconds * sample_rate))


@given(st.lists(st.integers(0, 20)), st.integers(1, 9))
@settings(deadline=None)
def test_reblock_keeps_every_sample(lengths: list[int], block_samples: int) -> None:
    samples = np.arange(sum(lengths), dtype=np.float32)
    parts = iter(np.split(samples, np.cumsum(lengths)[:-1]) if lengths else [])
    blocks = list(_reblock(parts, block_samples))
    np.testing.assert_array_equal(np.concatenate([samples[:0], *blocks]), samples)
    assert all(len(block) == block_samples for block in blocks[:-1])


def test_stream_decodes_only_what_is_asked_for() -> None:
    class Counting(io.BytesIO):
        most = 0

        def readinto(self, buffer: Any, /) -> int:
            found = super().readinto(buffer)
            Counting.most = max(Counting.most, self.tell())
            return found

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size >= 0
            content = super().read(size)
            Counting.most = max(Counting.most, self.tell())
            return content

    content = wav(np.zeros(100 * READ_FRAMES), subtype="PCM_16")
    blocks = stream_audio(Counting(content), RATE_HZ, block_seconds=1.0)
    next(blocks)
    assert Counting.most < len(content) / 10


# ---------------------------------------------------------------------------- broken files


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def broken() -> Iterator[tuple[str, bytes, str]]:
    pcm = encode_soundfile("WAV", "PCM_16", 16000)
    yield "empty", b"", "empty, 0 bytes"
    yield (
        "text",
        b"It was a dark night.\nAnd so on.\n",
        "found text: 'It was a dark night. And so on",
    )
    yield "utf-16", "It was dark".encode("utf-16"), "found UTF-16 text"
    yield "html", b"<!DOCTYPE html><html>404</html>", "found an HTML page"
    yield "zip", b"PK\x03\x04" + bytes(100), "found a zip archive"
    yield "lfs", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"
    yield "zeros", bytes(1000), "found data: 00 00"
    yield "noise", np.random.default_rng(0).bytes(5000), "found data"
    yield "playlist", b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n", "found text"
    yield "concat", b"ffconcat version 1.0\nfile /etc/hostname\n", "found text"
    yield "no samples", wav([]), "wav float without samples"
    yield "nan", wav([0.0, float("nan")]), "NaN or infinite sample at 0.000 s"
    yield "inf", wav([0.0] * 16000 + [float("-inf")]), "NaN or infinite sample at 1.000 s"
    yield "wav", cut(pcm, 0.5), "truncated wav pcm_16: the header states 64000 bytes, 3"
    yield "wav, one sample", pcm[:-2], "the header states 64000 bytes, 63998 are there"
    yield "wav head", pcm[:30], "found a wav or avi that is damaged"
    yield "mulaw", cut(encode_soundfile("WAV", "ULAW", 8000), 0.9), "truncated wav ulaw"
    yield "rf64", cut(encode_soundfile("RF64", "PCM_16", 8000), 0.9), "truncated rf64 pcm_16"
    yield "aiff", cut(encode_soundfile("AIFF", "PCM_16", 8000), 0.9), "truncated aiff pcm_16"
    yield "au", cut(encode_soundfile("AU", "PCM_16", 8000), 0.9), "truncated au pcm_16"
    yield "sphere", cut(encode_soundfile("NIST", "PCM_16", 8000), 0.9), "states 16000 samples"
    yield "flac", cut(encode_soundfile("FLAC", "PCM_16", 16000), 0.9), "flac decoder lost sync"
    yield "vorbis", cut(encode_soundfile("OGG", "VORBIS", 16000), 0.9), "truncated ogg"
    yield "opus", cut(encode_soundfile("OGG", "OPUS", 16000), 0.6), "truncated ogg"
    mp3 = encode_soundfile("MP3", "MPEG_LAYER_III", 44100)
    yield "mp3", cut(mp3, 0.8), "truncated mp3: the header states 88200 samples"
    yield "mp3 head", mp3[:300], "an mp3 that is damaged"
    yield "m4a", cut(encode_container("ipod", "aac", 44100), 0.8), "an mp4 or m4a that is damaged"
    fast = encode_container("ipod", "aac", 44100, {"movflags": "faststart"})
    yield "m4a, index first", cut(fast, 0.8), "mp4"
    yield "webm", cut(encode_container("webm", "libopus", 48000), 0.8), "truncated webm opus"
    yield "aac", cut(encode_container("adts", "aac", 44100), 0.81), "truncated aac near 1."
    changed = encode_container("adts", "aac", 44100) + encode_container("adts", "aac", 22050)
    yield "aac of two rates", changed, "changes from 44100 Hz, 2 channels to 22050 Hz, 2 channels"
    flipped = bytearray(encode_soundfile("FLAC", "PCM_16", 16000))
    flipped[len(flipped) // 2 :] = bytes(len(flipped) // 2 + 1)
    yield "flac, zeros inside", bytes(flipped), "damaged or truncated near"


BROKEN = list(broken())


@pytest.mark.parametrize(
    ("content", "message"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
def test_broken_files_say_what_is_wrong_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "take 1.wav"
    path.write_bytes(content)
    for read in (load_audio, lambda source, rate: list(stream_audio(source, rate))):
        with pytest.raises(AudioError) as caught:
            read(path, RATE_HZ)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_an_unreadable_format_names_the_readable_ones() -> None:
    with pytest.raises(AudioError, match=r"<5 bytes>: .*needed wav, flac, ogg/opus, mp3"):
        load_audio(b"hello", RATE_HZ)


def test_probe_finds_what_a_header_can_show() -> None:
    for name in ("empty", "text", "no samples", "wav", "au", "opus", "mp3 head"):
        content, message = next(b[1:] for b in BROKEN if b[0] == name)
        with pytest.raises(AudioError, match=message.split(":")[0]):
            probe_audio(content)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: cannot open .*: no such file or directory"):
        load_audio(tmp_path / "gone.wav", RATE_HZ)
    with pytest.raises(AudioError, match="a directory; needed an audio file"):
        load_audio(tmp_path, RATE_HZ)


def test_a_video_without_sound(tmp_path: Path) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for frame in (picture, None):
            container.mux(stream.encode(frame))
    with pytest.raises(AudioError, match="mp4 without an audio track"):
        load_audio(file.getvalue(), RATE_HZ)


def test_a_wav_written_to_a_pipe_has_no_stated_length() -> None:
    content = bytearray(encode_soundfile("WAV", "PCM_16", 16000))
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000):
        struct.pack_into("<I", content, content.index(b"data") + 4, length)
        assert load_audio(bytes(content), RATE_HZ).duration == SECONDS


def test_long_comments_do_not_hide_a_truncated_wav() -> None:
    plain = encode_soundfile("WAV", "PCM_16", 16000)
    comment = b"INFOICMT" + struct.pack("<I", 9000) + b"c" * 9000
    chunk = b"LIST" + struct.pack("<I", len(comment)) + comment
    content = plain[:4] + struct.pack("<I", len(plain) + len(chunk) - 8) + plain[8:36]
    content += chunk + plain[36:]
    assert load_audio(content, RATE_HZ).duration == SECONDS
    with pytest.raises(AudioError, match="truncated"):
        load_audio(content[:-100], RATE_HZ)


def test_an_mp3_without_a_frame_count_is_not_held_to_a_guess() -> None:
    """FFmpeg guesses its duration from the first bit rate and the bytes, here 3 s too long."""
    content = encode_container("mp3", "libmp3lame", 44100, {"write_xing": "0"})
    content += b"APETAGEX" + bytes(48000)
    assert load_audio(content, RATE_HZ).duration == pytest.approx(SECONDS, abs=0.05)
    assert probe_audio(content).duration == pytest.approx(SECONDS, abs=0.05)


@pytest.mark.parametrize("between", [b"", bytes(500), b"TAG" + b"x" * 125])
def test_joined_mp3s_keep_their_tags_inside(between: bytes) -> None:
    content = encode_container("mp3", "libmp3lame", 44100)
    audio = load_audio(content + between + content, RATE_HZ)
    assert audio.duration == pytest.approx(2 * SECONDS, abs=0.1)
    assert correlation(audio.samples) > 0.99


def test_mp3_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    content = encode_soundfile("MP3", "MPEG_LAYER_III", 16000)
    load_audio(content, RATE_HZ)
    with pytest.raises(AudioError):
        load_audio(content[: len(content) // 2], RATE_HZ)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_sample_rate_of_no_sound_is_refused(rate: int) -> None:
    """60,000 samples at 1 Hz would be 17 hours, gigabytes of memory from 120 KB."""
    content = bytearray(encode_soundfile("WAV", "PCM_16", 8000))
    content[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(AudioError, match=f"sample rate of {rate} Hz; needed 1000 to 1000000 Hz"):
        next(stream_audio(bytes(content), 16000))
