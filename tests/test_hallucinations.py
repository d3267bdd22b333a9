"""Signals without speech, the same on every machine, and the words counted in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import SAMPLE_RATE, save_tiny_model

from speech.audio import probe_audio
from speech.errors import AudioError, SpeechError
from speech.hallucinations import hallucinations, total_of_all, totals_by_kind
from speech.nonspeech import SIGNALS, nonspeech_signals
from speech.transcribe import Recogniser
from speech.transcript import Transcript, Word

KINDS = {"silence": 2, "noise": 9, "hum": 4, "clicks": 5, "tones": 6, "music": 4}


def level_db(samples: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(samples.astype(np.float64) ** 2)))


def test_the_signals_are_thirty_of_six_kinds_at_their_levels() -> None:
    signals = list(nonspeech_signals(SAMPLE_RATE, seconds=2.0))
    assert len(signals) == SIGNALS == 30
    assert Counter(signal.kind for signal in signals) == KINDS
    assert len({signal.name for signal in signals}) == 30
    silence, *others = signals
    assert not silence.samples.any()
    for signal in others:
        assert signal.samples.shape == (2 * SAMPLE_RATE,)
        assert signal.samples.dtype == np.float32
        assert np.abs(signal.samples).max() <= 1
        stated = float(signal.name.split(" at ")[1].removesuffix(" dB"))
        # What would pass full scale is turned down as a whole.
        assert stated - 12 < level_db(signal.samples) < stated + 0.1, signal.name
        if signal.kind in ("noise", "hum"):
            assert level_db(signal.samples) == pytest.approx(stated, abs=3.0)


def test_a_seed_gives_the_same_signals_and_another_gives_others() -> None:
    first, again, other = (
        [signal.samples for signal in nonspeech_signals(SAMPLE_RATE, seed, 1.0)]
        for seed in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    differing = sum(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert differing >= 30 - 1 - 6  # silence and pure tones have nothing of chance


def test_noise_has_its_colour() -> None:
    """Power a octave higher: the same in white noise, half in pink, a quarter in brown."""
    for signal in nonspeech_signals(16000, seconds=8.0):
        if signal.kind != "noise" or "-20" not in signal.name:
            continue
        power = np.abs(np.fft.rfft(signal.samples)) ** 2
        hz = np.fft.rfftfreq(len(signal.samples), 1 / 16000)
        low, high = (power[(hz > f) & (hz < 1.1 * f)].mean() for f in (500, 1000))
        expected = {"white": 0, "pink": -3, "brown": -6}[signal.name.split()[0]]
        assert 10 * np.log10(high / low) == pytest.approx(expected, abs=1.0)


def test_too_short_is_refused() -> None:
    with pytest.raises(SpeechError, match=r"at least a second, got 0\.5 s"):
        list(nonspeech_signals(SAMPLE_RATE, seconds=0.5))


class Listener(Recogniser):
    """Hears two words in every file that is not silent, and nothing in silence."""

    def transcribe_many(self, sources: Iterable[str | Path]) -> Iterator[Transcript | AudioError]:
        for source in sources:
            if not Path(source).exists():
                yield AudioError(f"{source}: no such file")
                continue
            samples, _ = soundfile.read(source)
            words = (Word("oh", 0, 0, 1), Word("no", 0, 0, 1)) if samples.any() else ()
            text = " ".join(word.word for word in words)
            yield Transcript(str(source), probe_audio(source).duration, text, 1.0, words)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Listener:
    return Listener.load(save_tiny_model(tmp_path_factory.mktemp("model")), threads=1)  # type: ignore[return-value]


def test_words_per_minute_by_pencil(listener: Listener, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "fan.wav", np.full(6 * SAMPLE_RATE, 0.1), SAMPLE_RATE)
    done = []
    heard = hallucinations(listener, [tmp_path / "fan.wav"], on_signal=lambda: done.append(1))
    assert len(done) == len(heard) == 31
    totals = {total.kind: total for total in totals_by_kind(heard)}
    assert list(totals) == ["your files", *KINDS]
    assert totals["your files"].words_per_minute == 20.0
    silence = totals["silence"]
    assert (silence.signals, silence.seconds, silence.words) == (2, 40.0, 2)
    assert silence.words_per_minute == 3.0
    whole = total_of_all(heard)
    assert (whole.signals, whole.seconds, whole.words) == (30, 600.0, 58)  # ten minutes
    assert whole.words_per_minute == 5.8


def test_a_file_that_cannot_be_read_is_an_error(listener: Listener, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        hallucinations(listener, [tmp_path / "gone.wav"])
