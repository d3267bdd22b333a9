"""Corpora by name: archives of their true layouts over a server that fails, to manifests."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Run
from file_server import Fault, FileServer, file_server

from speech.archive import MARKER
from speech.corpora import CORPORA, PreparedSplit, fetch, prepare
from speech.download import Patience
from speech.errors import ArchiveError, ManifestError, SpeechError
from speech.manifest import Utterance, read_manifest, write_manifest

PATIENCE = Patience(attempts=2, first_wait_seconds=0.0, timeout_seconds=5.0)
NOISE = np.random.default_rng(1)  # which does not pack, so that there is something to interrupt


def sound(path: Path, seconds: float = 0.25, sample_rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = NOISE.uniform(-0.5, 0.5, round(seconds * sample_rate))
    form = "NIST" if path.suffix == ".sph" else None
    soundfile.write(path, samples, sample_rate, format=form)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# ---------------------------------------------------------------------------- true layouts, small


def librispeech(top: Path, part: str) -> None:
    chapter = top / f"LibriSpeech/{part}/84/121123"
    for number in range(3):
        sound(chapter / f"84-121123-{number:04}.flac", sample_rate=16000)
    text(chapter / "84-121123.trans.txt", *(f"84-121123-{n:04} GO" for n in range(3)))
    text(top / "LibriSpeech/SPEAKERS.TXT", "; ID | SEX | SUBSET", "84 | F | dev-clean")


def fsdd(top: Path, part: str) -> None:
    for index in (0, 4, 5, 49):
        sound(top / f"free-spoken-digit-dataset-1.0.10/recordings/7_jackson_{index}.wav")
    text(top / "free-spoken-digit-dataset-1.0.10/README.md", "digits")


def speech_commands(top: Path, part: str) -> None:
    for name in ("yes/0a7c2a8d_nohash_0", "yes/1b_nohash_0", "no/2c_nohash_0"):
        sound(top / f"{name}.wav")
    text(top / "testing_list.txt", "yes/0a7c2a8d_nohash_0.wav")
    text(top / "validation_list.txt", "yes/1b_nohash_0.wav")


def yesno(top: Path, part: str) -> None:
    for name in ("0_0_0_1_0_0_0_1", "0_1_0_0_0_1_0_0", "1_0_0_0_0_0_0_0", "1_1_1_0_1_1_1_1"):
        sound(top / f"waves_yesno/{name}.wav")
    text(top / "waves_yesno/README", "Hebrew")


def an4(top: Path, part: str) -> None:
    lines = {
        "train": ("<s> GO </s>", "an4_clstk", ("an251-fash-b", "cen1-mtcv-b")),
        "test": ("GO", "an4test_clstk", ("an391-mjwl-b",)),
    }
    for split, (line, folder, ids) in lines.items():
        names = [f"{folder}/{id.split('-')[1]}/{id}" for id in ids]
        for name in names:
            sound(top / f"an4/wav/{name}.sph", sample_rate=16000)
        text(top / f"an4/etc/an4_{split}.fileids", *names)
        text(top / f"an4/etc/an4_{split}.transcription", *(f"{line} ({id})" for id in ids))


def ljspeech(top: Path, part: str) -> None:
    ids = [f"LJ001-000{number}" for number in range(3)]
    for id in ids:
        sound(top / f"LJSpeech-1.1/wavs/{id}.wav", sample_rate=22050)
    rows = [f'{id}|in 1455, "go"|in fourteen fifty-five, "go"' for id in ids]
    text(top / "LJSpeech-1.1/metadata.csv", *rows)


def vctk(top: Path, part: str) -> None:
    for speaker, microphones in (("p225", "12"), ("p280", "1"), ("p315", "1")):
        for microphone in microphones:
            name = f"{speaker}_001_mic{microphone}.flac"
            sound(top / f"wav48_silence_trimmed/{speaker}/{name}", sample_rate=48000)
        if speaker != "p315":
            text(top / f"txt/{speaker}/{speaker}_001.txt", "Please call Stella.")
    text(top / "txt/p225/p225_999.txt", "Without audio.")


def tedlium(top: Path, part: str) -> None:
    root = top / "TEDLIUM_release-3"
    for split, folder in (("train", "data"), ("dev", "legacy/dev"), ("test", "legacy/test")):
        sound(root / f"{folder}/sph/{split}Talk_2010W.sph", 1.0, 16000)
        line = f"{split}Talk_2010W 1 {split}Talk_2010W"
        text(root / f"{folder}/stm/{split}Talk_2010W.stm",
             f"{line} 0.00 0.10 <NA> ignore_time_segment_in_scoring",
             f"{line} 0.25 0.50 <o,f0,male> <unk> it 's the{{NOISE}} ocean(2)",
             f"{line} 0.75 1.10 <o,f0,male> we know")  # fmt: skip
    for kind in ("sph", "stm"):
        (root / f"legacy/train/{kind}").mkdir(parents=True)
        link = root / f"legacy/train/{kind}/trainTalk_2010W.{kind}"
        link.symlink_to(f"../../../data/{kind}/trainTalk_2010W.{kind}")


def common_voice(top: Path, part: str, folder: str = "cv-corpus-17.0-2024-03-15/en") -> None:
    root = top / folder
    clips = [f"common_voice_en_{number}.mp3" for number in range(3)]
    for clip in clips:
        sound(root / f"clips/{clip}")
    text(root / "train.tsv", "client_id\tpath\tsentence", *(f"ann\t{clip}\tGo." for clip in clips))


@dataclass(frozen=True)
class Example:
    """A corpus by name, a part of it, its layout, and what the manifests have to be."""

    corpus: str
    part: str
    build: Callable[[Path, str], None]
    counts: dict[str, int]
    first: tuple[str, str, str | None]  # id, text and speaker of the first utterance


EXAMPLES = (
    Example("mini_librispeech", "dev-clean-2", librispeech, {"dev-clean-2": 3},
            ("84-121123-0000", "GO", "84")),
    Example("librispeech", "test-other", librispeech, {"test-other": 3},
            ("84-121123-0000", "GO", "84")),
    Example("fsdd", "fsdd", fsdd, {"train": 2, "test": 2}, ("7_jackson_49", "seven", "jackson")),
    Example("speech-commands", "speech_commands", speech_commands,
            {"train": 1, "dev": 1, "test": 1}, ("no/2c_nohash_0", "no", "2c")),
    Example("yesno", "yesno", yesno, {"train": 2, "test": 2},
            ("0_0_0_1_0_0_0_1", "lo lo lo ken lo lo lo ken", "yesno")),
    Example("an4", "an4", an4, {"train": 2, "test": 1}, ("an251-fash-b", "GO", "fash")),
    Example("ljspeech", "ljspeech", ljspeech, {"train": 3},
            ("LJ001-0000", 'in fourteen fifty-five, "go"', "LJ")),
    Example("vctk", "vctk", vctk, {"mic1": 2, "mic2": 1},
            ("p225_001", "Please call Stella.", "p225")),
    Example("tedlium", "tedlium", tedlium, {"train": 2, "dev": 2, "test": 2},
            ("trainTalk_2010W-0000025-0000050", "it's the ocean", "trainTalk_2010W")),
)  # fmt: skip
# Nobody may download it for the user, who brings its archive.
COMMON_VOICE = Example("common_voice", "", common_voice, {"train": 3},
                       ("common_voice_en_0", "Go.", "ann"))  # fmt: skip
FLAT = replace(COMMON_VOICE, build=lambda top, part: common_voice(top, part, ""))


# ---------------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def shared() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def server(shared: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shared.files = {}
    shared.faults, shared.ranges, shared.default, shared.etag = [], [], Fault(), None
    return shared


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The packed bytes of every example, by corpus."""
    packed = {}
    for example in EXAMPLES:
        top = tmp_path_factory.mktemp(example.corpus)
        example.build(top, example.part)
        packed[example.corpus] = pack(top, remote(example).name)
    return packed


def module_name(example: Example) -> str:
    name = example.corpus.replace("-", "_")
    return f"speech.corpora.{CORPORA[name].module or name}"


def remote(example: Example):
    return importlib.import_module(module_name(example)).ARCHIVES[example.part].file


def pack(top: Path, name: str) -> bytes:
    """An archive of what is in ``top``, in the packing that its name says."""
    path = top.with_suffix(".packed")
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(top.rglob("*")):
                archive.write(file, file.relative_to(top))
    else:
        with tarfile.open(path, "w:bz2" if name.endswith("bz2") else "w:gz") as tar:
            tar.add(top, ".")
    return path.read_bytes()


Serve = Callable[[Example, bytes], None]


@pytest.fixture
def serve(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Put an archive on the server in place of the published one."""

    def put(example: Example, content: bytes) -> None:
        module = importlib.import_module(module_name(example))
        published = module.ARCHIVES[example.part]
        has_checksum = published.file.checksum is not None
        file = replace(
            published.file,
            urls=(server.url("gone"), server.url(published.file.name)),
            size=len(content) if published.file.size else None,
            checksum=f"sha256:{hashlib.sha256(content).hexdigest()}" if has_checksum else None,
        )
        server.files = {file.name: content}
        monkeypatch.setitem(module.ARCHIVES, example.part, replace(published, file=file))

    return put


def by_corpus(example: Example) -> str:
    return example.corpus


def prepared(example: Example, corpus: Path, output: Path) -> list[PreparedSplit]:
    """Prepare what is there; hold it against what the example has to give."""
    splits = prepare(example.corpus, corpus, output)
    assert {split.name: split.utterances for split in splits} == example.counts
    first = read_manifest(splits[0].manifest)[0]
    assert (first.id, first.text, first.speaker) == example.first
    assert first.duration == pytest.approx(0.25, abs=0.1)  # mp3 pads
    return splits


def refuse_half(example: Example, corpus: Path, output: Path) -> None:
    """What an interrupted call left is not taken for the corpus."""
    with pytest.raises(ManifestError) as caught:
        prepare(example.corpus, corpus, output)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_every_corpus_with_a_name_of_its_own_is_among_the_examples() -> None:
    formats = {"kaldi", "manifest", "nemo"}
    tried = [example.corpus.replace("-", "_") for example in (*EXAMPLES, COMMON_VOICE)]
    assert sorted(tried) == sorted(CORPORA.keys() - formats)


@pytest.mark.parametrize("example", EXAMPLES, ids=by_corpus)
def test_interrupted_and_resumed_twenty_times(
    example: Example,
    archives: dict[str, bytes],
    server: FileServer,
    serve: Serve,
    tmp_path: Path,
) -> None:
    """The connection breaks off at random bytes, in one call."""
    content = archives[example.corpus]
    serve(example, content)
    server.etag = '"same"'
    cuts = NOISE.integers(1, len(content) // 21, 20)
    server.faults = [Fault(), *(Fault(drop_after=int(cut)) for cut in cuts)]
    corpus = tmp_path / "corpus"
    fetch(example.corpus, corpus, (example.part,), patience=PATIENCE)
    assert len(server.ranges) == 22
    prepared(example, corpus, tmp_path / "out")


class Killed(BaseException):
    """Nothing catches it, and nothing cleans up behind it: see `Killer`."""


class Killer:
    """A progress function that ends the call at a byte of one of its steps, as SIGKILL would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.doing, self.byte, self.has_killed = "", 0, False
        rmtree = shutil.rmtree
        monkeypatch.setattr(
            shutil, "rmtree", lambda *a, **k: None if self.has_killed else rmtree(*a, **k)
        )

    def __call__(self, what: str, done: int, total: int) -> None:
        if what.startswith(self.doing) and done >= self.byte:
            self.has_killed = True
            raise Killed

    def kill(self, doing: str, byte: int, call: Callable[[], object]) -> None:
        self.doing, self.byte, self.has_killed = doing, byte, False
        with pytest.raises(Killed):
            call()
        self.has_killed = False


@pytest.mark.parametrize("example", EXAMPLES, ids=by_corpus)
def test_killed_and_called_again_twenty_times(
    example: Example,
    archives: dict[str, bytes],
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process dies at random bytes of the download and of the unpacking."""
    content = archives[example.corpus]
    serve(example, content)
    monkeypatch.setattr("speech.download.BLOCK_BYTES", 1 + len(content) // 200)
    corpus, out, killer = tmp_path / "corpus", tmp_path / "out", Killer(monkeypatch)
    bytes_there = sorted(NOISE.integers(1, len(content), 10))
    for doing in ("downloading", "unpacking"):
        for byte in bytes_there:
            killer.kill(doing, byte, lambda: fetch(
                example.corpus, corpus, (example.part,), killer, PATIENCE))  # fmt: skip
            refuse_half(example, corpus, out)
    fetch(example.corpus, corpus, (example.part,), patience=PATIENCE)
    prepared(example, corpus, out)


def test_an_archive_of_the_user_killed_and_called_again_twenty_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out, killer = tmp_path / "corpus/cv.tar.gz", tmp_path / "out", Killer(monkeypatch)
    common_voice(tmp_path / "top", "")
    path.parent.mkdir()
    path.write_bytes(pack(tmp_path / "top", path.name))
    for byte in NOISE.integers(1, path.stat().st_size, 20):
        killer.kill("unpacking", byte, lambda: prepare("common_voice", path, out, killer))
        refuse_half(COMMON_VOICE, path.parent, out)
    prepared(COMMON_VOICE, path, out)


@pytest.mark.parametrize("example", [*EXAMPLES, COMMON_VOICE, FLAT], ids=by_corpus)
@pytest.mark.parametrize("depth", ["", "one", "one/two"])
def test_what_was_being_unpacked_is_no_corpus(example: Example, depth: str, tmp_path: Path) -> None:
    """However much of it there is: perhaps its lists are whole and its recordings are not."""
    example.build(tmp_path / "corpus/.archive.unpacking" / depth, example.part)
    refuse_half(example, tmp_path / "corpus", tmp_path / "out")


@pytest.mark.parametrize("example", EXAMPLES, ids=by_corpus)
def test_killed_while_manifests_are_made(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, out, killer = tmp_path / "corpus", tmp_path / "out", Killer(monkeypatch)
    example.build(corpus, example.part)
    killer.kill("reading", 1, lambda: prepare(example.corpus, corpus, out, killer))
    assert not list(out.glob("*.jsonl"))
    wanted = len(example.counts)
    written: list[Path] = []

    def full(path: Path, utterances: Sequence[Utterance]) -> None:
        written.append(path)
        if len(written) == wanted:
            raise ManifestError(f"{path}: cannot write the manifest: no space left on device")
        write_manifest(path, utterances)

    with monkeypatch.context() as patch:
        patch.setattr("speech.corpora.write_manifest", full)
        with pytest.raises(ManifestError, match="no space left"):
            prepare(example.corpus, corpus, out)
    assert len(written) == wanted
    assert not list(out.glob("*.jsonl"))
    prepared(example, corpus, out)
    assert sorted(path.name for path in out.iterdir() if path.name != "audio") == sorted(
        f"{name}.jsonl" for name in example.counts
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=by_corpus)
def test_counts_unlike_the_published_are_told(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example.build(tmp_path / "corpus", example.part)
    published = importlib.import_module(module_name(example)).EXPECTED_COUNTS
    for split in prepare(example.corpus, tmp_path / "corpus", tmp_path / "out"):
        expected = published[split.name]
        told = f"{split.utterances} utterances; the published split has {expected}"
        assert told in split.warnings
    for name, count in example.counts.items():
        monkeypatch.setitem(published, name, count)
    for split in prepare(example.corpus, tmp_path / "corpus", tmp_path / "out"):
        assert not any("published" in warning for warning in split.warnings)


DAMAGES = ("corrupted", "truncated")
LIES = {"states too much": 1.5, "states too little": 0.5}  # of the size, in Content-Length


def damaged(content: bytes, damage: str) -> bytes:
    middle = len(content) // 2
    noise = bytes(byte ^ 255 for byte in content[middle : middle + 64])
    return content[:middle] + (noise + content[middle + 64 :] if damage == "corrupted" else b"")


@pytest.mark.parametrize("example", EXAMPLES, ids=by_corpus)
@pytest.mark.parametrize("damage", [*DAMAGES, *LIES])
def test_damaged_on_the_server(
    example: Example,
    damage: str,
    archives: dict[str, bytes],
    server: FileServer,
    serve: Serve,
    tmp_path: Path,
) -> None:
    content = archives[example.corpus]
    serve(example, content)
    if damage in LIES:
        server.default = Fault(states=round(LIES[damage] * len(content)))
    else:
        server.files = dict.fromkeys(server.files, damaged(content, damage))
    with pytest.raises(SpeechError) as caught:
        fetch(example.corpus, tmp_path / "corpus", (example.part,), patience=PATIENCE)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "corpus").iterdir() if not path.name.startswith(".")]
    refuse_half(example, tmp_path / "corpus", tmp_path / "out")
    server.default = Fault()
    serve(example, content)
    fetch(example.corpus, tmp_path / "corpus", (example.part,), patience=PATIENCE)
    assert list((tmp_path / "corpus").rglob(MARKER))
    prepared(example, tmp_path / "corpus", tmp_path / "out")


# Of the other one nothing is published to tell a damaged archive by, before it is unpacked.
VERIFIED = [example for example in EXAMPLES if example.corpus != "fsdd"]


@pytest.mark.parametrize("example", VERIFIED, ids=by_corpus)
@pytest.mark.parametrize("damage", [*DAMAGES, *LIES])
def test_another_mirror_makes_good_what_one_damages(
    example: Example,
    damage: str,
    archives: dict[str, bytes],
    server: FileServer,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = archives[example.corpus]
    serve(example, content)
    published = importlib.import_module(module_name(example)).ARCHIVES
    archive = published[example.part]
    urls = (server.url("bad"), *archive.file.urls)
    replaced = replace(archive, file=replace(archive.file, urls=urls))
    monkeypatch.setitem(published, example.part, replaced)
    server.files["bad"] = content if damage in LIES else damaged(content, damage)
    if damage in LIES:  # until it is given up
        fault = Fault(states=round(LIES[damage] * len(content)))
        server.faults = [fault] * (1 if archive.file.size else PATIENCE.attempts)
    fetch(example.corpus, tmp_path / "corpus", (example.part,), patience=PATIENCE)
    prepared(example, tmp_path / "corpus", tmp_path / "out")


HARM = {
    "escape": ("../../evil", "'../../evil' leads out of the archive"),
    "link": ("link", "the link link leads to '../secret'|'link' is a link"),
    "hard link": ("hard", "'../secret' leads out of the archive|'hard' is a link"),
    "bomb": ("zeros", "unpacks to more than"),
}


def hostile(top: Path, name: str, kind: str) -> bytes:
    """The true layout with one member that should not be there; the checksum will be right."""
    content = pack(top, name)
    member, _ = HARM[kind]
    zeros = bytes(20 * len(content) + (2 << 20)) if kind == "bomb" else b""
    if name.endswith(".zip"):
        path = top.with_suffix(".hostile")
        path.write_bytes(content)
        with zipfile.ZipFile(path, "a") as archive:
            zipped = zipfile.ZipInfo(member)
            zipped.external_attr = (0o120777 if "link" in kind else 0o100644) << 16
            zipped.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(zipped, b"../secret" if "link" in kind else zeros)
        return path.read_bytes()
    whole = bz2.decompress(content) if name.endswith("bz2") else gzip.decompress(content)
    info = tarfile.TarInfo(member)
    info.linkname, info.size = "../secret", len(zeros)
    info.type = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}.get(kind, tarfile.REGTYPE)
    return gzip.compress(info.tobuf() + zeros + bytes(-len(zeros) % 512) + whole, 1)


@pytest.mark.parametrize("example", EXAMPLES, ids=by_corpus)
@pytest.mark.parametrize("kind", ["escape", "link", "hard link", "bomb"])
def test_an_archive_that_means_harm(
    example: Example, kind: str, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.unpack.EXPANSION_SLACK_BYTES", 1 << 20)
    (tmp_path / "top").mkdir()
    example.build(tmp_path / "top", example.part)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/secret").write_text("mine")
    serve(example, hostile(tmp_path / "top", remote(example).name, kind))
    with pytest.raises(ArchiveError, match=HARM[kind][1]) as caught:
        fetch(example.corpus, tmp_path / "corpus", (example.part,), patience=PATIENCE)
    assert "\n" not in str(caught.value)
    left = {path.name for path in (tmp_path / "corpus").iterdir()}
    assert left <= {"secret", remote(example).name}
    assert (tmp_path / "corpus/secret").read_text() == "mine"
    assert not list(tmp_path.rglob("evil"))
    with pytest.raises(ManifestError):
        prepare(example.corpus, tmp_path / "corpus", tmp_path / "out")


@pytest.mark.parametrize("kind", [*HARM, *DAMAGES])
def test_a_bad_archive_that_the_user_brings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.unpack.EXPANSION_SLACK_BYTES", 1 << 20)
    (tmp_path / "top").mkdir()
    common_voice(tmp_path / "top", "")
    whole = pack(tmp_path / "top", "cv.tar.gz")
    path = tmp_path / "corpus/cv.tar.gz"
    path.parent.mkdir()
    (tmp_path / "corpus/secret").write_text("mine")
    path.write_bytes(
        hostile(tmp_path / "top", path.name, kind) if kind in HARM else damaged(whole, kind)
    )
    expected = HARM[kind][1] if kind in HARM else "cut off|damaged"
    with pytest.raises(ArchiveError, match=expected) as caught:
        prepare("common-voice", path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert {one.name for one in path.parent.iterdir()} == {"secret", path.name}
    assert not (tmp_path / "out").exists()
    path.write_bytes(whole)
    (split,) = prepare("common-voice", path, tmp_path / "out")
    assert split.utterances == 3


# ---------------------------------------------------------------------------- names and parts


def test_by_the_command_line(
    run: Run, archives: dict[str, bytes], serve: Serve, server: FileServer, tmp_path: Path
) -> None:
    example = EXAMPLES[0]
    serve(example, archives[example.corpus])
    result = run("prepare", "mini-librispeech", tmp_path / "corpus", "--output", tmp_path / "out",
                 "--download", "--part", "dev-clean-2")  # fmt: skip
    assert result.status == 0, result.stderr
    assert result.lines == [f"{tmp_path}/out/dev-clean-2.jsonl: 3 utterances, 0.00 h"]
    assert "dev-clean-2: 3 utterances; the published split has 1089" in result.stderr
    server.files.clear()
    again = run("prepare", "mini-librispeech", tmp_path / "corpus", "--output", tmp_path / "out",
                "--download", "--part", "dev-clean-2")  # fmt: skip
    assert again.lines == result.lines


def test_names_that_are_not(tmp_path: Path) -> None:
    for corpus, parts, message in (
        ("timit", (), "unknown corpus 'timit'"),
        ("kaldi", (), "kaldi: cannot be downloaded; needed its files in"),
        ("mini_librispeech", ("dev-clean",), "has no part 'dev-clean'; there are train-clean-5, "),
        ("fsdd", ("train",), "fsdd has no part 'train'; there are fsdd"),
    ):
        with pytest.raises(ManifestError, match=message):
            fetch(corpus, tmp_path, parts)


def test_every_part_is_fetched_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted: list[str] = []
    monkeypatch.setattr("speech.corpora.install", lambda one, *_: wanted.append(one.root))
    fetch("mini-librispeech", tmp_path)
    assert wanted == ["LibriSpeech/train-clean-5", "LibriSpeech/dev-clean-2"]
    wanted.clear()
    fetch("librispeech", tmp_path)
    assert len(wanted) == 7
    assert not set(wanted) & {"LibriSpeech/train-clean-5", "LibriSpeech/dev-clean-2"}


def test_a_name_may_mean_some_parts(tmp_path: Path) -> None:
    for part in ("dev-clean", "dev-clean-2"):
        librispeech(tmp_path, part)
    found = [
        [split.name for split in prepare(name, tmp_path, tmp_path / "out", parts=parts)]
        for name, parts in (
            ("librispeech", ()),
            ("mini_librispeech", ()),
            ("librispeech", ("dev-clean",)),
        )
    ]
    assert found == [["dev-clean", "dev-clean-2"], ["dev-clean-2"], ["dev-clean"]]
    with pytest.raises(ManifestError, match="has no part 'test'; there are dev-clean, dev-clean-2"):
        prepare("librispeech", tmp_path, tmp_path / "out", parts=("test",))


def test_an_archive_in_place_of_a_folder(archives: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(archives["librispeech"])
    (split,) = prepare("librispeech", path, tmp_path / "out")
    assert split.utterances == 3
    assert (tmp_path / "mine/LibriSpeech/test-other").is_dir()


def test_the_readme_has_the_counts_of_the_cards() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    table = readme[readme.index("## Corpora by name") :]
    for name, known in CORPORA.items():
        counts = importlib.import_module(f"speech.corpora.{known.module or name}").EXPECTED_COUNTS
        (row,) = [row for row in table.split("\n") if f"| `{name}` |" in row] or [""]
        for part in known.parts or ([] if name == "librispeech" else counts):
            assert not counts or f"{counts[part]:,}" in row


def test_every_published_archive_is_named_well() -> None:
    seen = 0
    for name, known in CORPORA.items():
        archives = importlib.import_module(f"speech.corpora.{known.module or name}").ARCHIVES
        assert not archives or set(known.parts) | set(known.downloads) <= set(archives)
        for archive in archives.values():
            seen += 1
            assert archive.file.urls
            assert all(url.startswith("http") for url in archive.file.urls)
            assert all(url.endswith(f".{archive.file.name.split('.', 1)[-1]}") or name == "fsdd"
                       for url in archive.file.urls)  # fmt: skip
            if archive.file.checksum is not None:
                algorithm, _, digest = archive.file.checksum.partition(":")
                assert len(digest) == len(hashlib.new(algorithm).hexdigest())
                int(digest, 16)
    assert seen >= 20
