"""The report: a page that is whole in itself, escapes what it shows, and survives missing audio."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
from conftest import write_tiny_corpus
from tiny import SAMPLE_RATE, save_tiny_model

from speech.decoder import GREEDY
from speech.evaluate import evaluate, measure_noise, read_manifests
from speech.manifest import Utterance
from speech.report_page import PAGE_FILE, SUMMARY_FILE, ReportSettings, write_report
from speech.results import RESULTS_FILE, Evaluation, Score, read_results, score_pair
from speech.transcribe import Recogniser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
HOSTILE = "<script>alert(1)</script> \"' onload=x & </style>"


class Page(HTMLParser):
    """Checks that tags are balanced; collects what would be loaded, scripts, texts and ids."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names), f"<{tag}> repeats an attribute"
        self.addresses += [value or "" for name, value in attributes if name in LOADING]
        self.handlers += [name for name in names if name.startswith("on")]
        self.ids += [value or "" for name, value in attributes if name == "id"]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return Recogniser.load(
        save_tiny_model(tmp_path_factory.mktemp("model")), threads=1, options=GREEDY
    )


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    manifest = write_tiny_corpus(tmp_path_factory.mktemp("corpus"), 4, sample_rate=SAMPLE_RATE)
    return [utterance for _, utterance in read_manifests([manifest])]


@pytest.fixture(scope="module")
def evaluation(recogniser: Recogniser, utterances: list[Utterance]) -> Evaluation:
    manifest = Path(utterances[0].source.rpartition(":")[0])
    result = evaluate([manifest], recogniser, "tiny")
    result = measure_noise(result, utterances, SAMPLE_RATE)
    return dataclasses.replace(result, run={"command": "speech evaluate", "sha256": {"m": "0f"}})


def write(
    directory: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser,
    **settings: int,
) -> tuple[str, Page]:  # fmt: skip
    paths = [utterance.audio_path for utterance in utterances]
    page = write_report(directory, evaluation, paths, recogniser, ReportSettings(**settings))
    assert page == directory / PAGE_FILE
    content = page.read_text("utf-8")
    return content, Page(content)


def test_the_page_is_whole_in_itself(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    content, page = write(tmp_path, evaluation, utterances, recogniser)
    assert content.startswith("<!DOCTYPE html>")
    assert len(page.addresses) > 8
    outside = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert outside == []
    assert not re.search(r"url\(|@import|https?://", content)
    assert len(set(page.ids)) == len(page.ids)
    jumps = [address[1:] for address in page.addresses if address.startswith("#")]
    assert set(jumps) <= set(page.ids)
    assert page.handlers == []
    assert page.tags.count("audio") == page.tags.count("img") == 4
    assert {"svg", "polygon", "table", "nav", "main"} <= set(page.tags)


def test_sound_and_picture_are_what_they_say(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    _, page = write(tmp_path, evaluation, utterances, recogniser, worst=1)
    (audio,) = (a for a in page.addresses if a.startswith("data:audio/mpeg;base64,"))
    samples, _ = soundfile.read(io.BytesIO(base64.b64decode(audio.partition(",")[2])))
    assert 0.4 < len(samples) / 16000 < 1.1
    (image,) = (a for a in page.addresses if a.startswith("data:image/png;base64,"))
    assert base64.b64decode(image.partition(",")[2]).startswith(b"\x89PNG")


def test_the_figures_for_programs(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    _, page = write(tmp_path, evaluation, utterances, recogniser)
    assert read_results(tmp_path).scores == evaluation.scores
    assert (tmp_path / RESULTS_FILE).is_file()
    summary = json.loads((tmp_path / SUMMARY_FILE).read_text(), parse_constant=pytest.fail)
    assert summary["figures"] == evaluation.to_dict()
    low, high = summary["cer_interval"]
    assert low <= summary["figures"]["cer"] <= high
    assert (summary["resampled"], summary["drawn"]) == ("speakers", 2)
    rows = summary["tables"]["speaker"]
    assert [row["name"] for row in rows] == ["tone-0", "tone-1"]
    assert sum(row["words"] for row in rows) == summary["figures"]["words"]
    heard = sum(len(score.heard) for score in evaluation.scores)
    assert sum(summary["confidence"]["histogram"]) == summary["confidence"]["words"] == heard
    assert f"{summary['figures']['wer']:.2%}".replace("%", " %") in page.text
    assert "speech evaluate" in page.text


def hostile_score(score: Score) -> Score:
    return dataclasses.replace(
        score_pair(HOSTILE, HOSTILE, score.hypothesis),
        speaker=HOSTILE, corpus=HOSTILE, heard=score.heard, duration=score.duration,
    )  # fmt: skip


def test_hostile_texts_stay_texts(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    calm, calm_page = write(tmp_path / "calm", evaluation, utterances, recogniser)
    scores = tuple(map(hostile_score, evaluation.scores))
    hostile = dataclasses.replace(
        evaluation, scores=scores, model=HOSTILE, lm=HOSTILE, run={HOSTILE: HOSTILE}
    )
    content, page = write(tmp_path / "hostile", hostile, utterances, recogniser)
    assert HOSTILE in page.text
    assert HOSTILE not in content
    assert page.tags.count("script") == calm_page.tags.count("script") == 1
    assert page.handlers == []
    assert content.count("alert(1)") > 10
    assert calm.count("</style>") == content.count("</style>") == 1


def test_missing_audio_is_told_where_it_would_be(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    gone = [dataclasses.replace(u, audio_path=tmp_path / "gone.wav") for u in utterances]
    _, page = write(tmp_path, evaluation, gone, recogniser)
    assert page.text.count("gone.wav: cannot open the audio file") == 4
    assert "audio" not in page.tags


def test_sound_is_bounded(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    _, page = write(tmp_path, evaluation, utterances, recogniser, audio_limit_bytes=10_000)
    shown = [address for address in page.addresses if address.startswith("data:audio")]
    assert 0 < len(shown) < 4
    assert sum(map(len, shown)) <= 10_000
    assert page.text.count("The sound is left out") == 4 - len(shown)


def test_without_errors_speakers_or_words(
    tmp_path: Path, evaluation: Evaluation, utterances: list[Utterance], recogniser: Recogniser
) -> None:
    """Silence heard as silence, and silence in which a word is heard, break no figure."""
    silent = dataclasses.replace(evaluation, scores=(score_pair("silence", "", ""),))
    _, page = write(tmp_path / "a", silent, utterances[:1], recogniser)
    assert "No utterance has an error." in page.text
    heard = dataclasses.replace(evaluation, scores=(score_pair("silence", "", "boo"),))
    content, page = write(tmp_path / "b", heard, utterances[:1], recogniser)
    assert "∞" in page.text
    assert not re.search(r"\bnan\b", content)
