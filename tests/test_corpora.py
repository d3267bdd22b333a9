"""Corpora: tiny archives in the true layouts to manifests, and what a damaged archive is told."""

from __future__ import annotations

import importlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech.corpora import CORPORA, PreparedSplit, prepare
from speech.errors import ManifestError
from speech.manifest import Utterance, durations_agree, read_manifest, write_manifest


def sound(path: Path, seconds: float = 0.5, sample_rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.full(round(seconds * sample_rate), 0.1)
    form = "NIST" if path.suffix == ".sph" else None
    soundfile.write(path, samples, sample_rate, format=form)
    return path


def lines(path: Path, *content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return path


def rows(split: PreparedSplit) -> list[tuple[str, str, str | None, float]]:
    utterances = read_manifest(split.manifest)
    assert all(u.audio_path.is_file() for u in utterances)
    assert split.utterances == len(utterances)
    assert split.seconds == pytest.approx(sum(u.duration for u in utterances))
    return [(u.id, u.text, u.speaker, u.duration) for u in utterances]


def refusal(corpus: str, directory: Path) -> str:
    """The one line that says why, and nothing written."""
    output = directory.parent / "refused"
    with pytest.raises(ManifestError) as caught:
        prepare(corpus, directory, output)
    assert not output.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------- all corpora


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_corpus_has_its_card(corpus: str) -> None:
    module = importlib.import_module(f"speech.corpora.{CORPORA[corpus].module or corpus}")
    assert all(f"\n{word} " in module.__doc__ for word in ("Layout", "Splits"))
    if corpus in ("kaldi", "manifest", "nemo"):  # formats, of whatever corpus
        assert not module.EXPECTED_COUNTS
        return
    for word in ("Origin ", "Licence ", "Size ", "Texts ", "Archive"):
        assert f"\n{word}" in module.__doc__
    assert module.EXPECTED_COUNTS or corpus == "common_voice"  # whose releases differ
    for count in module.EXPECTED_COUNTS.values():
        assert f"{count:,}" in module.__doc__


@pytest.mark.parametrize("corpus", CORPORA)
def test_an_empty_or_missing_folder(corpus: str, tmp_path: Path) -> None:
    assert "no such directory" in refusal(corpus, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    message = refusal(corpus, tmp_path / "empty")
    assert "needed" in message or "cannot be read" in message


def test_an_unknown_corpus_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="unknown corpus 'timit'; there are an4, common_voice, fsdd, "
    ):
        prepare("timit", tmp_path, tmp_path)


# ---------------------------------------------------------------------------- LibriSpeech


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    root = tmp_path / "LibriSpeech"
    for part, speaker, chapter, texts in (
        ("dev-clean-2", "84", "121123", ["GO", "DO YOU KNOW"]),
        ("train-clean-5", "1088", "134315", ["AS YOU KNOW"]),
        ("train-clean-5", "118", "47824", ["", "IT'S  TWO"]),
    ):
        folder, stem = root / part / speaker / chapter, f"{speaker}-{chapter}"
        ids = [f"{stem}-{number:04}" for number in range(len(texts))]
        for number, id in enumerate(ids):
            sound(folder / f"{id}.flac", 0.5 + number)
        lines(folder / f"{stem}.trans.txt", *map(" ".join, zip(ids, texts, strict=True)))
    lines(root / "SPEAKERS.TXT", "; ID | SEX | SUBSET", "84 | F | dev-clean")
    return root


def test_librispeech(librispeech: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    splits = prepare(
        "librispeech",
        librispeech,
        tmp_path / "out",
        lambda _, done, total: calls.append((done, total)),
    )
    assert [split.name for split in splits] == ["train-clean-5", "dev-clean-2"]
    assert rows(splits[0]) == [
        ("1088-134315-0000", "AS YOU KNOW", "1088", 0.5),
        ("118-47824-0000", "", "118", 0.5),
        ("118-47824-0001", "IT'S  TWO", "118", 1.5),
    ]
    assert rows(splits[1]) == [
        ("84-121123-0000", "GO", "84", 0.5),
        ("84-121123-0001", "DO YOU KNOW", "84", 1.5),
    ]
    assert splits[0].manifest == tmp_path / "out/train-clean-5.jsonl"
    assert splits[0].warnings == ("3 utterances; the published split has 1519",)
    assert calls == [(done, 5) for done in range(1, 6)]


def test_librispeech_is_found_one_folder_up_and_twice_the_same(
    librispeech: Path, tmp_path: Path
) -> None:
    contents = [
        [split.manifest.read_bytes() for split in prepare("librispeech", place, tmp_path / "out")]
        for place in (librispeech, librispeech.parent, librispeech)
    ]
    assert contents[0] == contents[1] == contents[2]


def test_librispeech_without_a_transcript(librispeech: Path) -> None:
    chapter = librispeech / "train-clean-5/118/47824"
    sound(chapter / "118-47824-0002.flac")
    expected = f"{chapter}/118-47824.trans.txt: lacks the transcript of 118-47824-0002.flac"
    assert refusal("librispeech", librispeech) == expected
    (chapter / "118-47824.trans.txt").unlink()
    assert "118-47824.trans.txt: cannot be read: no such file" in refusal(
        "librispeech", librispeech
    )


def test_librispeech_without_the_audio(librispeech: Path) -> None:
    chapter = librispeech / "train-clean-5/118/47824"
    (chapter / "118-47824-0001.flac").unlink()
    message = refusal("librispeech", librispeech)
    assert message.startswith(f"{chapter}/118-47824.trans.txt:2: {chapter}/118-47824-0001.flac: ")
    (chapter / "118-47824-0001.flac").write_text("It was not to be.")
    assert "118-47824.trans.txt:2: " in refusal("librispeech", librispeech)
    assert "found text: 'It was not to be.'" in refusal("librispeech", librispeech)


# ---------------------------------------------------------------------------- digits and commands


def test_fsdd(tmp_path: Path) -> None:
    names = ["7_jackson_32", "0_george_4", "0_george_5", "0_george_10", "9_yweweler_0"]
    for name in names:
        sound(tmp_path / f"fsdd/recordings/{name}.wav", sample_rate=8000)
    train, test = prepare("fsdd", tmp_path / "fsdd", tmp_path / "out")
    assert rows(train) == [
        ("0_george_10", "zero", "george", 0.5),
        ("0_george_5", "zero", "george", 0.5),
        ("7_jackson_32", "seven", "jackson", 0.5),
    ]
    assert [row[:2] for row in rows(test)] == [("0_george_4", "zero"), ("9_yweweler_0", "nine")]
    assert train.warnings == ("3 utterances; the published split has 2700",)
    sound(tmp_path / "fsdd/recordings/noise.wav")
    assert "noise.wav: needed a name like 7_jackson_32.wav" in refusal("fsdd", tmp_path / "fsdd")


def test_speech_commands(tmp_path: Path) -> None:
    root = tmp_path / "commands"
    for name in (
        "yes/0a7c2a8d_nohash_0",
        "yes/1b_nohash_0",
        "no/0a7c2a8d_nohash_1",
        "no/2c_nohash_0",
    ):
        sound(root / f"{name}.wav")
    sound(root / "_background_noise_/white_noise.wav", 60)
    lines(root / "testing_list.txt", "yes/0a7c2a8d_nohash_0.wav", "no/0a7c2a8d_nohash_1.wav")
    lines(root / "validation_list.txt", "yes/1b_nohash_0.wav")
    train, dev, test = prepare("speech-commands", root, tmp_path / "out")
    assert rows(train) == [("no/2c_nohash_0", "no", "2c", 0.5)]
    assert rows(dev) == [("yes/1b_nohash_0", "yes", "1b", 0.5)]
    assert [row[0] for row in rows(test)] == ["no/0a7c2a8d_nohash_1", "yes/0a7c2a8d_nohash_0"]
    assert dev.warnings == ("1 utterances; the published split has 9981",)
    (root / "yes/0a7c2a8d_nohash_0.wav").unlink()
    message = refusal("speech_commands", root)
    assert message.startswith(f"{root}/testing_list.txt:1: yes/0a7c2a8d_nohash_0.wav is listed")
    (root / "testing_list.txt").unlink()
    assert "testing_list.txt: cannot be read" in refusal("speech_commands", root)


# ---------------------------------------------------------------------------- more corpora


def test_yesno_names(tmp_path: Path) -> None:
    sound(tmp_path / "0_1_1_1_0_1_0_1.wav")
    assert "holds 1 recordings; needed" in refusal("yesno", tmp_path)
    sound(tmp_path / "0_1_1_1_0_1_0_2.wav")
    assert "0_1_1_1_0_1_0_2.wav: needed a name like" in refusal("yesno", tmp_path)


@pytest.fixture
def an4(tmp_path: Path) -> Path:
    root = tmp_path / "an4"
    for split, folder, line in (
        ("train", "an4_clstk", "<s> RUBOUT G M E F </s> (an251-fash-b)"),
        ("test", "an4test_clstk", "GO (an251-fash-b)"),
    ):
        sound(root / f"wav/{folder}/fash/an251-fash-b.sph")
        lines(root / f"etc/an4_{split}.fileids", f"{folder}/fash/an251-fash-b")
        lines(root / f"etc/an4_{split}.transcription", line)
    return root


def test_an4(an4: Path, tmp_path: Path) -> None:
    train, test = prepare("an4", an4, tmp_path / "out")
    assert rows(train) == [("an251-fash-b", "RUBOUT G M E F", "fash", 0.5)]
    assert rows(test) == [("an251-fash-b", "GO", "fash", 0.5)]
    assert train.warnings == ("1 utterances; the published split has 948",)


def test_an4_lists_that_do_not_fit(an4: Path) -> None:
    listed = an4 / "etc/an4_train.transcription"
    lines(listed, "<s> GO </s> (an252-fash-b)")
    assert refusal("an4", an4).startswith(f"{listed}:1: needed a text and (an251-fash-b)")
    lines(listed, "<s> GO </s> (an251-fash-b)", "<s> GO </s> (an252-fash-b)")
    assert f"{listed}: 2 lines; needed 1" in refusal("an4", an4)
    lines(listed, "<s> GO </s> (an251-fash-b)")
    path = an4 / "wav/an4_clstk/fash/an251-fash-b.sph"
    path.rename(path.with_suffix(".raw"))
    assert "an251-fash-b.raw has no header; needed the sphere archive" in refusal("an4", an4)
    path.with_suffix(".raw").unlink()
    assert f"{listed}:1: {path}: " in refusal("an4", an4)


def test_ljspeech_columns(tmp_path: Path) -> None:
    lines(tmp_path / "metadata.csv", "LJ001-0001|Printing")
    assert "metadata.csv:1: 2 columns; needed id|text|normalised" in refusal("ljspeech", tmp_path)
    lines(tmp_path / "metadata.csv")
    assert "metadata.csv: is empty" in refusal("ljspeech", tmp_path)


def test_vctk_texts(tmp_path: Path) -> None:
    root = tmp_path / "vctk"
    sound(root / "wav48_silence_trimmed/p225/p225_001_mic1.flac")
    assert "p225_001.txt: cannot be read: no such file" in refusal("vctk", root)
    lines(root / "txt/p225/p225_001.txt", "Please call Stella. ", "Twice.")
    assert "p225_001.txt: 2 lines of text; needed one" in refusal("vctk", root)
    lines(root / "txt/p225/p225_001.txt", "Please call Stella. ")
    (mic1,) = prepare("vctk", root, tmp_path / "out")
    assert rows(mic1) == [("p225_001", "Please call Stella.", "p225", 0.5)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("i 'd like to share", "i'd like to share"),
        ("<sil> the(2) ocean <sil>", "the ocean"),
        ("<unk> because of {NOISE} them [NOISE] <unk>", "because of them"),
        ("we know (AimeeMullins_2009P-17.82-28.81-F0_F-S0)", "we know"),
        ("rock ' n roll ' 60s", "rock ' n roll ' 60s"),
        ("", ""),
        ("<unk>", ""),
    ],
)
def test_tedlium_texts(tmp_path: Path, text: str, words: str) -> None:
    root = tmp_path / "ted"
    sound(root / "legacy/dev/sph/A_2010.sph", 2.0)
    stm = lines(
        root / "legacy/dev/stm/A_2010.stm", ";; comment", f"A_2010 1 A 0.5 1.25 <NA> {text}"
    )
    (dev,) = prepare("tedlium", root, tmp_path / "out")
    assert rows(dev) == [("A_2010-0000050-0000125", words, "A", 0.75)]
    assert read_manifest(dev.manifest)[0].audio_path.is_relative_to(tmp_path / "out/audio/dev")
    for line in ("A_2010 1 A 0.5 later <NA> a", "A_2010 1 A 0.5"):
        lines(stm, line)
        assert f"{stm}:1: needed talk, channel, speaker" in refusal("tedlium", root)
    lines(stm, "A_2010 1 A 0.5 9.0 <NA> a")
    assert f"{stm}:1: from 0.5 to 9 s is not a part of" in refusal("tedlium", root)


@pytest.fixture
def common_voice(tmp_path: Path) -> Path:
    root = tmp_path / "cv-corpus-17.0-2024-03-15/en"
    header = "client_id\tpath\tsentence_id\tsentence\tlocale"
    for split, names in (("train", ("1", "2")), ("test", ("3",)), ("validated", ("1", "2", "3"))):
        listed = [f'ann\tcommon_voice_en_{n}.mp3\t\t"Quoted, said.\ten' for n in names]
        lines(root / f"{split}.tsv", header, *listed)
        for name in names:
            sound(root / f"clips/common_voice_en_{name}.mp3")
    lines(root / "dev.tsv", header)
    return root


def test_common_voice(common_voice: Path, tmp_path: Path) -> None:
    train, test = prepare("common-voice", common_voice.parent, tmp_path / "out")
    (id, text, speaker, duration), _ = rows(train)
    assert (id, text, speaker) == ("common_voice_en_1", '"Quoted, said.', "ann")
    assert duration == pytest.approx(0.5, abs=0.1)
    assert (train.warnings, test.utterances) == ((), 1)
    (validated,) = prepare("common-voice", common_voice, tmp_path / "out", parts=("validated",))
    assert validated.utterances == 3


def test_common_voice_from_its_archive(common_voice: Path, tmp_path: Path) -> None:
    path = tmp_path / "cv-corpus-17.0-en.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(common_voice.parent, common_voice.parent.name)
    train, _ = prepare("common-voice", path, tmp_path / "out")
    assert "cv-corpus-17.0-en" in read_manifest(train.manifest)[0].audio_path.parts


def test_common_voice_durations(common_voice: Path, tmp_path: Path) -> None:
    stated = [f"common_voice_en_{n}.mp3\t{ms}" for n, ms in ((1, 9000), (2, 504), (3, 504))]
    lines(common_voice / "clip_durations.tsv", "clip\tduration[ms]", *stated)
    train, _ = prepare("common-voice", common_voice, tmp_path / "out")
    (warning,) = train.warnings
    assert "durations were wrong and are corrected, first" in warning
    assert "train.tsv:2: 9.000 s stated" in warning
    lines(common_voice / "clip_durations.tsv", "clip\tduration[ms]", "a.mp3\tlong")
    assert "clip_durations.tsv:2: needed a clip" in refusal("common_voice", common_voice)


def test_common_voice_lists_that_do_not_fit(common_voice: Path) -> None:
    lines(common_voice / "train.tsv", "client_id\tpath\tsentence", "ann\tgone.mp3\tgo")
    assert "train.tsv:2: " in refusal("common_voice", common_voice)
    lines(common_voice / "train.tsv", "client_id\tpath\tsentence", "ann\tgone.mp3")
    assert "train.tsv:2: 2 columns; needed 3" in refusal("common_voice", common_voice)
    lines(common_voice / "train.tsv", "client_id\tpath")
    assert "train.tsv: has no column 'sentence'" in refusal("common_voice", common_voice)
    (common_voice.parent / "cy/clips").mkdir(parents=True)
    message = refusal("common_voice", common_voice.parent)
    assert "holds cy, en; needed the folder of one language" in message


# ---------------------------------------------------------------------------- Kaldi


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    """speechocean762's layout: lists in train/ and test/, paths from the folder above."""
    root = tmp_path / "ocean"
    for split, id in (("train", "000010011"), ("test", "000030012")):
        sound(root / f"WAVE/SPEAKER{id[:4]}/{id}.wav")
        lines(root / split / "wav.scp", f"{id}\tWAVE/SPEAKER{id[:4]}/{id}.wav")
        lines(root / split / "text", f"{id}\tWE CALL IT  BEAR")
        lines(root / split / "utt2spk", f"{id}\t{id[:4]}")
    return root


def test_kaldi(kaldi: Path, tmp_path: Path) -> None:
    test, train = prepare("kaldi", kaldi, tmp_path / "out")
    assert (test.name, train.name) == ("test", "train")
    assert rows(train) == [("000010011", "WE CALL IT  BEAR", "0000", 0.5)]
    (alone,) = prepare("kaldi", kaldi / "train", tmp_path / "out2")
    assert alone.name == "train"
    assert rows(alone) == rows(train)
    assert train.warnings == ()


def test_kaldi_without_speakers_and_with_empty_texts(kaldi: Path, tmp_path: Path) -> None:
    (kaldi / "train/utt2spk").unlink()
    lines(kaldi / "train/text", "000010011")
    (train,) = prepare("kaldi", kaldi / "train", tmp_path / "out")
    assert rows(train) == [("000010011", "", None, 0.5)]


@pytest.mark.parametrize(
    ("command", "suffix"),
    [
        ("{}", ".wav"),
        ("flac -c -d -s {} |", ".flac"),
        ("/usr/bin/flac -cds '{}' |", ".flac"),
        ("sph2pipe -f wav {} |", ".sph"),
        ("tools/sph2pipe_v2.5/sph2pipe -f wav -p {}|", ".sph"),
        ("cat {} |", ".wav"),
    ],
)
def test_kaldi_commands_that_only_decode(
    kaldi: Path, tmp_path: Path, command: str, suffix: str
) -> None:
    path = sound(tmp_path / f"b{suffix}")
    lines(kaldi / "train/wav.scp", f"000010011 {command.format(path)}")
    (train,) = prepare("kaldi", kaldi / "train", tmp_path / "out")
    assert read_manifest(train.manifest)[0].audio_path.samefile(path)


@pytest.mark.parametrize(
    "command",
    [
        "sox a.wav -t wav - speed 1.1 |",
        "sph2pipe -f wav -p -c 2 a.sph |",
        "flac -c -d -s --skip=100 a.flac |",
        "cat a.wav | sox - -t wav - |",
        "flac |",
        "rm -rf 'a |",
        "|",
    ],
)
def test_kaldi_commands_that_do_more_are_refused(kaldi: Path, command: str) -> None:
    lines(kaldi / "train/wav.scp", f"000010011 {command}")
    message = refusal("kaldi", kaldi / "train")
    assert message.startswith(
        f"{kaldi}/train/wav.scp:1: the command {command!r} is not run; needed"
    )


def test_kaldi_lists_that_do_not_fit(kaldi: Path) -> None:
    train = kaldi / "train"
    lines(train / "utt2spk", "other 0000")
    assert "wav.scp:1: 000010011 has no speaker in" in refusal("kaldi", train)
    lines(train / "text", "000010011 A", "000010012 B")
    (train / "utt2spk").unlink()
    assert "text:2: 000010012 has no audio in" in refusal("kaldi", train)
    lines(train / "text", "000010012 B")
    assert "wav.scp:1: 000010011 has no transcript in" in refusal("kaldi", train)
    lines(train / "text", "000010011 A", "000010011 B")
    assert f"text:2: 000010011 stands already in {train}/text:1" in refusal("kaldi", train)
    lines(train / "text", "000010011 A")
    lines(train / "wav.scp", "000010011 gone/a.wav")
    assert "wav.scp:1: gone/a.wav is neither in" in refusal("kaldi", train)
    lines(train / "wav.scp", "000010011")
    assert "wav.scp:1: names no file" in refusal("kaldi", train)


def test_kaldi_segments(kaldi: Path, tmp_path: Path) -> None:
    train = kaldi / "train"
    lines(train / "segments", "a-1 000010011 0.0 0.2", "a-2 000010011 0.2 0.5")
    lines(train / "text", "a-1 WE CALL", "a-2 IT")
    lines(train / "utt2spk", "a-1 0000", "a-2 0000")
    (split,) = prepare("kaldi", train, tmp_path / "out")
    assert rows(split) == [("a-1", "WE CALL", "0000", 0.2), ("a-2", "IT", "0000", 0.3)]
    assert read_manifest(split.manifest)[1].audio_path == (
        tmp_path / "out/audio/train/000010011/a-2.flac"
    )
    for line, message in (
        ("a-1 other 0.0 0.2", "segments:1: other is not in wav.scp"),
        ("a-1 000010011 0.0", "segments:1: needed utterance, recording, start and end"),
        ("a-1 000010011 0.0 2.0", "segments:1: from 0 to 2 s is not a part of"),
    ):
        lines(train / "segments", line, "a-2 000010011 0.2 0.5")
        assert message in refusal("kaldi", train)


# ---------------------------------------------------------------------------- manifests


def entry(path: str, duration: float = 0.5, **fields: object) -> str:
    return json.dumps({"audio_filepath": path, "duration": duration, "text": "a"} | fields)


def test_nemo(tmp_path: Path) -> None:
    root = tmp_path / "nemo"
    absolute = sound(tmp_path / "elsewhere/b.wav")
    sound(root / "wavs/a.wav")
    lines(root / "train.json", entry("wavs/a.wav", lang="en"), entry(str(absolute), 2.0))
    lines(root / "dev.jsonl", entry("wavs/a.wav"))
    dev, train = prepare("nemo", root, tmp_path / "out")
    assert (dev.name, train.name) == ("dev", "train")
    assert [(u.id, u.duration) for u in read_manifest(train.manifest)] == [
        ("wavs/a", 0.5),
        (str(absolute.with_suffix("")), 0.5),
    ]
    assert dev.warnings == ()
    assert train.warnings == (
        f"1 durations were wrong and are corrected, first {root}/train.json:2: "
        "2.000 s stated, 0.500 s by the audio",
    )
    (single,) = prepare("nemo", root / "train.json", tmp_path / "out2")
    assert rows(single) == rows(train)
    lines(root / "dev.json", entry("wavs/a.wav"))
    assert "there is a second manifest of split 'dev'" in refusal("nemo", root)


def test_nemo_offsets_and_missing_audio(tmp_path: Path) -> None:
    root = tmp_path / "nemo"
    lines(root / "train.json", entry("a.wav", offset=2.5))
    assert f"{root}/train.json:1: 'offset' is 2.5; slices" in refusal("nemo", root)
    lines(root / "train.json", entry("a.wav"))
    assert f"{root}/train.json:1: {root}/a.wav: cannot open" in refusal("nemo", root)


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    for corpus, splits in (("fsdd", ("train", "test")), ("arctic", ("train",))):
        for split in splits:
            audio = sound(tmp_path / f"corpora/{corpus}/audio/{split}.wav")
            speaker = "george" if corpus == "fsdd" else None
            utterance = Utterance("1", audio, 0.5, "Äpfel, 2!", speaker)
            write_manifest(tmp_path / f"corpora/{corpus}/{split}.jsonl", [utterance])
    return tmp_path / "corpora"


def test_manifest_of_one_corpus_is_rewritten(corpora: Path, tmp_path: Path) -> None:
    test, train = prepare("manifest", corpora / "fsdd", tmp_path / "out")
    assert (test.name, train.name) == ("test", "train")
    assert rows(train) == [("1", "Äpfel, 2!", "george", 0.5)]
    assert json.loads(train.manifest.read_text())["audio_filepath"] == (
        "../corpora/fsdd/audio/train.wav"
    )


def test_manifests_of_several_corpora_are_merged(corpora: Path, tmp_path: Path) -> None:
    train, test = prepare("manifest", corpora, tmp_path / "out")
    assert (train.name, test.name) == ("train", "test")
    assert rows(train) == [
        ("arctic/1", "Äpfel, 2!", None, 0.5),
        ("fsdd/1", "Äpfel, 2!", "fsdd/george", 0.5),
    ]


def test_an_id_that_comes_twice(corpora: Path) -> None:
    path = corpora / "fsdd/train.jsonl"
    path.write_text(path.read_text() * 2)
    message = refusal("manifest", corpora / "fsdd")
    assert message == f"{path}:2: id '1' is also that of {path}:1"


@pytest.mark.parametrize(
    ("measured", "stated", "agree"),
    [(1.0, 1.02, True), (1.0, 0.979, False), (10.0, 10.1, True), (10.0, 9.899, False)],
)
def test_durations_agree_within_a_fiftieth_of_a_second_or_a_hundredth(
    measured: float, stated: float, agree: bool
) -> None:
    assert durations_agree(measured, stated) is agree
