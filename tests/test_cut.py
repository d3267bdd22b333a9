"""Segments of long recordings: the same samples, in files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.audio import load_audio, write_flac
from speech.cut import Segment, cut
from speech.errors import ManifestError
from speech.manifest import Utterance

SAMPLE_RATE = 8000
INTEGERS = np.random.default_rng(1).integers(-(1 << 15), 1 << 15, SAMPLE_RATE, dtype=np.int16)


def talk(folder: Path) -> Path:
    path = folder / "talk.sph"
    soundfile.write(path, INTEGERS, SAMPLE_RATE, format="NIST", subtype="PCM_16")
    return path


def segment(path: Path, start: float, end: float, id: str = "") -> Segment:
    return Segment(id or f"{start}-{end}", path, 0.0, "a", "ann", "talk.stm:1", start, end)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talk(tmp_path_factory.mktemp("talks"))


@settings(max_examples=20, deadline=None)
@given(bounds=st.lists(st.integers(0, SAMPLE_RATE), min_size=2, max_size=2, unique=True))
def test_a_slice_has_the_same_sixteen_bits(
    recording: Path, tmp_path_factory: pytest.TempPathFactory, bounds: list[int]
) -> None:
    first, last = sorted(bounds)
    wanted = segment(recording, first / SAMPLE_RATE, last / SAMPLE_RATE)
    (made,) = cut([wanted], tmp_path_factory.mktemp("cut"))
    samples, sample_rate = soundfile.read(made.audio_path, dtype="int16")
    assert sample_rate == SAMPLE_RATE
    np.testing.assert_array_equal(samples, INTEGERS[first:last])
    assert made.duration == pytest.approx((last - first) / SAMPLE_RATE)
    assert (made.id, made.text, made.speaker, made.source) == (
        wanted.id, "a", "ann", "talk.stm:1",
    )  # fmt: skip


def test_order_is_kept_and_utterances_pass(recording: Path, tmp_path: Path) -> None:
    plain = Utterance("plain", recording, 1.0, "a")
    told: list[tuple[str, int, int]] = []
    wanted = [segment(recording, 0.5, 1.0), plain, segment(recording, 0.0, 0.5)]
    made = cut(wanted, tmp_path, lambda *row: told.append(row))
    assert [one.id for one in made] == ["0.5-1.0", "plain", "0.0-0.5"]
    assert made[1] is plain
    assert made[0].audio_path == tmp_path / "talk/0.5-1.0.flac"
    assert told == [("cutting recordings", 1, 1)]


def test_what_is_cut_is_not_cut_again(recording: Path, tmp_path: Path) -> None:
    (made,) = cut([segment(recording, 0.0, 0.5)], tmp_path)
    before = made.audio_path.stat().st_mtime_ns
    (again, _) = cut([segment(recording, 0.0, 0.5), segment(recording, 0.5, 1.0)], tmp_path)
    assert again == made
    assert made.audio_path.stat().st_mtime_ns == before


def test_a_segment_may_end_a_little_late(recording: Path, tmp_path: Path) -> None:
    (made,) = cut([segment(recording, 0.75, 1.5)], tmp_path)
    assert load_audio(made.audio_path, SAMPLE_RATE).duration == 0.25


@pytest.mark.parametrize(
    ("start", "end"), [(0.5, 1.51), (1.0, 1.2), (0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0, np.nan)]
)
def test_a_segment_outside_its_recording(
    recording: Path, tmp_path: Path, start: float, end: float
) -> None:
    with pytest.raises(ManifestError, match=r"^talk\.stm:1: from .* is not a part of .*1\.00 s"):
        cut([segment(recording, start, end)], tmp_path)
    assert not list(tmp_path.rglob("*.flac"))


def test_a_recording_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^talk\.stm:1: .*gone\.sph: cannot open"):
        cut([segment(tmp_path / "gone.sph", 0.0, 1.0)], tmp_path)


def test_flac_clips_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_flac(tmp_path / "a.flac", np.array([-2.0, -1.0, 0.0, 1.0, 2.0], np.float32), SAMPLE_RATE)
    samples, _ = soundfile.read(tmp_path / "a.flac", dtype="int16")
    assert samples.tolist() == [-32768, -32768, 0, 32767, 32767]

    def fail(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("speech.audio.soundfile.write", fail)
    with pytest.raises(OSError, match="No space left"):
        write_flac(tmp_path / "b.flac", np.zeros(8, np.float32), SAMPLE_RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]
