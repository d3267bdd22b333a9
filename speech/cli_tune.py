"""``speech lm tune``: the weights of language models that make the fewest word errors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speech.cli_options import ModelOption, ThreadsOption, WithoutSpeakerOption
from speech.environment import cache_directory
from speech.progress import progress_bar

if TYPE_CHECKING:
    from speech.beam_search import BeamDecoder
    from speech.char_language_model import CharLanguageModel
    from speech.manifest import Utterance
    from speech.tokenizer import CharTokenizer
    from speech.tune import DevelopmentSet
    from speech.tuning import Tuning

RESCORING_WEIGHTS = tuple(step / 20 for step in range(1, 21))
RESCORING_WORD_BONUSES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
_TEXTS_PER_ADVANCE = 200


@dataclass(frozen=True)
class _Work:
    """What is tuned on, and what is to be stored of that."""

    model: str
    manifest: list[Path]
    without_speakers: list[str]
    utterances: list[Utterance]
    threads: int | None

    def checksums(self) -> dict[str, str]:
        """What the log-probs depend on."""
        from speech.checkpoint import WEIGHTS_FILE, find_model
        from speech.provenance import sha256_of

        return {"model": sha256_of([find_model(self.model) / WEIGHTS_FILE]),
                "manifest": sha256_of(self.manifest),
                "without": " ".join(sorted(self.without_speakers))}  # fmt: skip

    def described(self, tuning: Tuning) -> Tuning:
        """The tuning with what it was found on."""
        from speech.manifest import corpus_name

        return dataclasses.replace(
            tuning, model=self.model, manifest=tuple(map(corpus_name, self.manifest)),
            manifest_sha256=self.checksums()["manifest"],
            without_speakers=tuple(self.without_speakers), utterances=len(self.utterances),
        )  # fmt: skip


def tune(
    lm: Annotated[str, typer.Argument(metavar="LM", help="Name, directory or file.")],
    manifest: Annotated[list[Path], typer.Argument(metavar="MANIFEST...")],
    model: ModelOption = "base",
    without_speaker: WithoutSpeakerOption = None,
    rescore: Annotated[
        str | None,
        typer.Option(metavar="NEURAL", help="Tune this neural model behind LM as it is tuned."),
    ] = None,
    threads: ThreadsOption = None,
    log_probs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", dir_okay=False, help="Where the log-probs are kept."),
    ] = None,
) -> None:
    """Find the weights of a language model that make the fewest word errors; store them beside it.

    The network runs once for a model and manifests: its log-probs are kept. With --rescore the
    weights of LM stay as they are, and those of the neural model are stored beside that one.
    """
    from speech.char_language_model import find_char_model
    from speech.cli_decoding import ready_decoder
    from speech.decoder import DecoderOptions
    from speech.language_model import find_language_model
    from speech.manifest import read_manifest
    from speech.tune import select

    if log_probs is not None and log_probs.suffix != ".npz":
        raise typer.BadParameter(f"--log-probs needs a FILE.npz, got {log_probs}")
    path = find_language_model(lm)
    if rescore is not None:
        find_char_model(rescore)
    left_out = without_speaker or []
    utterances = select((u for one in manifest for u in read_manifest(one)), left_out)
    work = _Work(model, manifest, left_out, utterances, threads)
    development, tokenizer = _development_set(work, log_probs)
    decoder = ready_decoder(DecoderOptions(lm), tokenizer)
    assert decoder is not None
    if rescore is None:
        _tune_search(work, path, decoder, development)
    else:
        _tune_rescoring(work, lm, rescore, decoder, development)


def _development_set(work: _Work, store: Path | None) -> tuple[DevelopmentSet, CharTokenizer]:
    from speech.decoder import GREEDY
    from speech.transcribe import Recogniser
    from speech.tune import read_development_set

    recogniser = Recogniser.load(work.model, work.threads, options=GREEDY)  # for its log-probs
    checksums = work.checksums()
    place = store or cache_directory() / f"log-probs-{_digest(checksums)}.npz"
    with progress_bar("computing log-probs", sum(u.duration for u in work.utterances)) as advance:
        development = read_development_set(
            work.utterances, recogniser, place, checksums, lambda u: advance(u.duration)
        )
    return development, recogniser.model.tokenizer


def _tune_search(
    work: _Work, path: Path, decoder: BeamDecoder, development: DevelopmentSet
) -> None:
    from speech.tune import OTHERS, count_trials
    from speech.tune import tune as run
    from speech.tuning import Tuning, write_tuning
    from speech.workers import usable_cores

    with progress_bar("tuning", count_trials()) as advance:
        best, trials = run(
            decoder, development, work.threads or usable_cores(), lambda _: advance(1)
        )
    names = ("lm_weight", "word_bonus", *OTHERS, "beam_size")
    print("  ".join((*names, "    WER", "seconds")))
    for trial in trials:
        row = [f"{getattr(trial, name):{len(name)}g}" for name in names]
        row += [f"{trial.errors.rate:7.2%}", f"{trial.seconds:7.2f}"]
        print("  ".join(row) + (" *" if trial == best else ""))
    found = {name: getattr(best, name) for name in names}
    alike = {**found, "beam_size": None}
    sizes = {
        str(trial.beam_size): trial.errors.rate
        for trial in trials
        if {name: getattr(trial, name) for name in names} | {"beam_size": None} == alike
    }
    written = write_tuning(
        path, work.described(Tuning(**found, wer=best.errors.rate, beam_sizes=sizes))
    )
    settings = ", ".join(f"{name} {value:g}" for name, value in found.items())
    print(f"{written}: {settings}: WER {best.errors.rate:.2%} of {len(work.utterances)} utterances")


def _tune_rescoring(
    work: _Work, lm: str, neural: str, decoder: BeamDecoder, development: DevelopmentSet
) -> None:
    from speech.char_language_model import CharLanguageModel, find_char_model
    from speech.rescore import CANDIDATES, Rescorer, RescoringWeights, tune_rescoring
    from speech.shipped import CHAR_WEIGHTS_FILE
    from speech.tuning import Tuning, write_tuning
    from speech.workers import usable_cores

    model = CharLanguageModel.load(neural)
    Rescorer(model, RescoringWeights(0.0)).check(decoder.tokenizer)
    flat = [segment for own in development.segments for segment in own]
    many = dataclasses.replace(decoder.settings, n_best=CANDIDATES)
    found = iter(decoder.with_settings(many).search_many(flat, work.threads or usable_cores()))
    best, trials = tune_rescoring(
        [[next(found) for _ in own] for own in development.segments], development.references,
        decoder.tokenizer, lambda texts: _log_probs(model, texts), RESCORING_WEIGHTS,
        RESCORING_WORD_BONUSES,
    )  # fmt: skip
    print("weight  word_bonus      WER")
    for trial in trials:
        mark = " *" if trial == best else ""
        print(
            f"{trial.weights.weight:6.2f}  {trial.weights.word_bonus:10.2f}  "
            f"{trial.errors.rate:7.2%}{mark}"
        )
    weights, rate = best.weights, best.errors.rate
    written = write_tuning(find_char_model(neural) / CHAR_WEIGHTS_FILE, work.described(Tuning(
        weights.weight, weights.word_bonus, CANDIDATES, wer=rate, lm=lm,
    )))  # fmt: skip
    print(
        f"{written}: weight {weights.weight}, word_bonus {weights.word_bonus}: WER {rate:.2%} "
        f"of {len(work.utterances)} utterances, {trials[0].errors.rate:.2%} without"
    )


def _log_probs(model: CharLanguageModel, texts: Sequence[str]) -> list[float]:
    results: list[float] = []
    with progress_bar("judging texts", len(texts)) as advance:
        while len(results) < len(texts):
            some = texts[len(results) : len(results) + _TEXTS_PER_ADVANCE]
            results += model.log_probs(some)
            advance(len(some))
    return results


def _digest(checksums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()[:16]
