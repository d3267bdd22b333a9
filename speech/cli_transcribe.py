"""The command that most people want: recordings to transcripts."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_cluster import SHARD_SIZE, ClusterWork, transcribe_on_cluster
from speech.cli_decoding import load_recogniser, takes_decoder_options
from speech.cli_live import STDIN, stream_file
from speech.cli_options import ModelOption, Precision, PrecisionOption, ThreadsOption
from speech.errors import AudioError, SpeechError
from speech.progress import progress_bar
from speech.transcript import WRITERS, sentence_case
from speech.whole_file import write_whole

if TYPE_CHECKING:
    from speech.decoder import DecoderOptions
    from speech.recordings import Recording
    from speech.transcribe import Recogniser
    from speech.transcript import Transcript

SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv"}


class Engine(StrEnum):
    """Where recordings are transcribed."""

    local = "local"
    ray = "ray"


class Format(StrEnum):
    """Written forms of a transcript."""

    text = "text"
    json = "json"
    srt = "srt"
    vtt = "vtt"
    tsv = "tsv"


STREAM_FORMATS = (Format.text, Format.json)


class VoiceActivity(StrEnum):
    """What tells speech from pauses in long recordings."""

    network = "network"
    levels = "levels"


@takes_decoder_options
def transcribe(
    audio: Annotated[
        list[Path],
        typer.Argument(
            metavar="AUDIO...", help="Audio or video files, directories, patterns, manifests."
        ),
    ],
    model: ModelOption = "base",
    format: Annotated[Format, typer.Option(help="Form of the transcripts.")] = Format.text,
    output_dir: Annotated[
        Path | None, typer.Option(help="Write one file a recording here instead of stdout.")
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out what is written already.")
    ] = False,
    sentence_case_: Annotated[
        bool, typer.Option("--sentence-case", help="Capitals at the start, after pauses, and I.")
    ] = False,
    n_best: Annotated[int, typer.Option(min=1, help="Texts a recording, with json.")] = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Recordings read at a time; else one a core.")
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Show results as they come; AUDIO may be -: 16-bit "
            "mono samples at 16 kHz on stdin.",
        ),
    ] = False,
    voice_activity: Annotated[
        VoiceActivity, typer.Option(help="What finds the pauses of recordings above 30 s.")
    ] = VoiceActivity.network,
    threads: ThreadsOption = None,
    precision: PrecisionOption = Precision.auto,
    engine: Annotated[
        Engine, typer.Option(help="local: this process; ray: the workers of a Ray cluster.")
    ] = Engine.local,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Head of the Ray cluster; else as Ray finds it, or one of this machine alone.",
        ),
    ] = None,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Recordings that a worker of a cluster takes at a time.")
    ] = SHARD_SIZE,
    *,
    decoding: DecoderOptions,
) -> None:
    """Transcribe audio files of any length and format, in the order given.

    A directory stands for the audio files in it, at any depth, a manifest (.jsonl, .json) for its
    recordings. A file that cannot be read is reported and the others go on; the exit status is
    then 1.

    With --engine ray, OUTPUT_DIR gets transcripts.txt or transcripts.jsonl when all are done.
    Called again after an interruption, it goes on with the shards that are missing; recordings
    without a transcript are tried again. Each worker has --threads threads, else 1.
    """
    on_cluster = engine is Engine.ray
    by_levels = voice_activity is VoiceActivity.levels
    if n_best > 1 and format is not Format.json:
        raise typer.BadParameter("--n-best needs --format json")
    if skip_existing and output_dir is None:
        raise typer.BadParameter("--skip-existing needs --output-dir")
    if not on_cluster and (cluster is not None or shard_size != SHARD_SIZE):
        raise typer.BadParameter("--cluster and --shard-size need --engine ray")
    if stream:
        if len(audio) > 1 or output_dir or n_best > 1 or on_cluster or format not in STREAM_FORMATS:
            raise typer.BadParameter("--stream takes one AUDIO and --format text or json, no more")
        recogniser = load_recogniser(model, 1, decoding, precision.same_everywhere)
        stream_file(recogniser, audio[0], format is Format.json)
        return
    if STDIN in audio:
        raise typer.BadParameter("-, samples on stdin, needs --stream")
    from speech.recordings import find_recordings, total_seconds

    options = dataclasses.replace(decoding, n_best=n_best)
    if on_cluster:
        from speech.shards import MERGED_FILES

        if output_dir is None or format.value not in MERGED_FILES or jobs or by_levels:
            raise typer.BadParameter(
                "--engine ray needs --output-dir and --format text or json, and no --jobs or "
                "--voice-activity"
            )
        work = ClusterWork(output_dir, model, options, precision.same_everywhere, threads or 1,
                           sentence_case_, format.value, cluster, shard_size)  # fmt: skip
        transcribe_on_cluster(find_recordings(audio), work)
        return
    recordings = find_recordings(audio)
    targets = _output_files(recordings, output_dir, format)
    if skip_existing:
        recordings, targets = _without_existing(recordings, targets)
    paths = [recording.path for recording in recordings]
    seconds = total_seconds(paths)
    recogniser = load_recogniser(model, threads, options, precision.value, seconds)
    recogniser.hears_voice = not by_levels
    write = _writer(format, sentence_case_, with_names=len(audio) > 1 or len(recordings) > 1)
    with progress_bar("transcribing", seconds) as advance:
        _transcribe(recogniser, paths, targets, jobs, write, advance)


def _writer(
    format: Format, in_sentences: bool, with_names: bool
) -> Callable[[Path, Path | None, Transcript], None]:
    """What writes a recording's transcript into a file, or to stdout where there is none."""

    def write(path: Path, target: Path | None, transcript: Transcript) -> None:
        if in_sentences:
            transcript = sentence_case(transcript)
        written = WRITERS[format.value](transcript).rstrip("\n")
        if target is not None:
            write_whole(target, written + "\n")
        elif format is Format.text and with_names:
            print(f"{path}\t{written}", flush=True)
        else:
            print(written, flush=True)

    return write


def _transcribe(
    recogniser: Recogniser,
    paths: Sequence[Path],
    targets: Sequence[Path | None],
    jobs: int | None,
    write: Callable[[Path, Path | None, Transcript], None],
    advance: Callable[[float], None],
) -> None:
    """Write all transcripts; SpeechError at the end if there were files without one."""
    from speech.workers import usable_cores

    failed = 0
    results = recogniser.transcribe_many(paths, jobs or usable_cores(), advance)
    for path, target, result in zip(paths, targets, results, strict=True):
        if isinstance(result, AudioError):
            failed += 1
            _warn(str(result))
        else:
            write(path, target, result)
    if failed:
        raise SpeechError(f"{failed} of {len(paths)} files could not be transcribed")


def _output_files(
    recordings: Sequence[Recording], directory: Path | None, format: Format
) -> list[Path | None]:
    """Where each transcript goes; two recordings of one name would overwrite each other."""
    if directory is None:
        return [None] * len(recordings)
    directory.mkdir(parents=True, exist_ok=True)
    targets = [Path(f"{directory / one.place}{SUFFIXES[format.value]}") for one in recordings]
    seen: set[Path] = set()
    for target in targets:
        if target in seen:
            raise SpeechError(f"two recordings would be written to {target}: rename one of them")
        seen.add(target)
    return list(targets)


def _without_existing(
    recordings: Sequence[Recording], targets: Sequence[Path | None]
) -> tuple[list[Recording], list[Path | None]]:
    pairs = zip(recordings, targets, strict=True)
    left = [(one, target) for one, target in pairs if target is None or not target.exists()]
    if len(left) < len(recordings):
        _warn(f"{len(recordings) - len(left)} of {len(recordings)} are transcribed already")
    return [one for one, _ in left], [target for _, target in left]


def _warn(message: str) -> None:
    print(f"speech: {message}", file=sys.stderr, flush=True)
