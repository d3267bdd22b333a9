"""Synthetic speech: what the engines are asked for, and what Festival says of its words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from synthesise import Prompt, SynthesisError, Voice, is_plain, speak_at, speak_timed, words_of

RATE_HZ = 16_000
FESTIVAL = Voice("festival", "kal_diphone", f0_hz=105)

VOICE_DATA = Path("/usr/share/festival/voices/english") / FESTIVAL.name  # Debian's place

needs_festival = pytest.mark.skipif(
    shutil.which("festival") is None or not VOICE_DATA.is_dir(), reason="needs festival, its voice"
)


def test_sentences_that_engines_read_otherwise_are_left_out() -> None:
    assert is_plain("The dog's tail, I think, is wet.")
    assert not is_plain("Mr Smith is here.")
    assert not is_plain("It costs 5 dollars.")
    assert not is_plain("The NATO is here.")


@needs_festival
def test_words_that_festival_splits_are_spoken_but_have_no_times() -> None:
    prompt = Prompt("the dog's tail", FESTIVAL)
    samples = speak_at(prompt, RATE_HZ)
    assert len(samples) > RATE_HZ / 2
    assert np.abs(samples).max() == pytest.approx(0.7)
    with pytest.raises(SynthesisError, match=r"festival-kal_diphone on .*: read as"):
        speak_timed(prompt, RATE_HZ)


@needs_festival
def test_festival_tells_when_it_says_each_word() -> None:
    samples, words = speak_timed(Prompt("The cat sat, again.", FESTIVAL), RATE_HZ)
    assert [word.word for word in words] == words_of("the cat sat again")
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert 0 <= edges[0] < edges[-1] <= len(samples) / RATE_HZ
