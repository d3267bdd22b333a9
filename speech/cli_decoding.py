"""The options that choose a decoder, and the recogniser they lead to, for all commands."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from speech.collector import collector_paused
from speech.environment import unmap_idle_libraries

if TYPE_CHECKING:
    from speech.beam_search import BeamDecoder
    from speech.checkpoint import Model
    from speech.decoder import DecoderOptions
    from speech.tokenizer import CharTokenizer
    from speech.transcribe import Recogniser


PARAMETER = "decoding"  # of a command; the options stand in its place
OPTIONS: dict[str, tuple[Any, object]] = {  # how each is declared, and its default
    "lm": (
        Annotated[
            str,
            typer.Option(metavar="LM", help="Language model: a name, a path, or none. The default "
                         "is english, for models with its alphabet."),
        ],
        "default",
    ),
    "beam_size": (
        Annotated[int | None, typer.Option(min=1, help="Texts kept; else as tuned.")], None,
    ),
    "lm_weight": (
        Annotated[float | None, typer.Option(min=0, help="Of the language model; else as tuned.")],
        None,
    ),
    "word_bonus": (
        Annotated[float | None, typer.Option(help="What a word earns; else as tuned.")], None,
    ),
    "hot_word": (
        Annotated[
            list[str] | None,
            typer.Option(metavar="PHRASE=WEIGHT", help="Expected word or phrase; repeatable."),
        ],
        None,
    ),
    "hot_words": (
        Annotated[Path | None, typer.Option(metavar="FILE", help="A hot word a line.")], None,
    ),
    "rescore": (
        Annotated[
            str, typer.Option(metavar="LM", help="Neural language model for the best texts."),
        ],
        "none",
    ),
    "rescore_weight": (
        Annotated[float | None, typer.Option(min=0, help="Of that model; else as tuned.")], None,
    ),
}  # fmt: skip


def takes_decoder_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options above in place of its parameter ``decoding: DecoderOptions``."""

    @functools.wraps(command)
    def call(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in OPTIONS}
        command(**given, **{PARAMETER: decoder_options(**chosen)})

    hints = get_type_hints(command, localns={"DecoderOptions": object}, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name != PARAMETER:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        parameters += [
            inspect.Parameter(option, parameter.kind, default=default, annotation=annotation)
            for option, (annotation, default) in OPTIONS.items()
        ]
    ordered = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    call.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in ordered}
    return call


def decoder_options(
    lm: str,
    beam_size: int | None,
    lm_weight: float | None,
    word_bonus: float | None,
    hot_word: Sequence[str] | None,
    hot_words: Path | None,
    rescore: str,
    rescore_weight: float | None,
) -> DecoderOptions:
    """What the options of a command line ask for."""
    from speech.decoder import DecoderOptions
    from speech.hot_words import HotWord, read_hot_words

    expected = [HotWord.parse(text) for text in hot_word or []]
    if hot_words is not None:
        expected += read_hot_words(hot_words)
    return DecoderOptions(
        lm, beam_size, lm_weight, word_bonus, tuple(expected),
        rescore=rescore, rescore_weight=rescore_weight,
    )  # fmt: skip


def load_recogniser(
    name: str,
    threads: int | None,
    options: DecoderOptions,
    precision: str = "float32",
    audio_seconds: float = 0.0,
) -> Recogniser:
    """A model by its name with the decoder that the options ask for, compiled.

    How much audio is to come decides whether the precision ``auto`` is worth a self-test.
    """
    with collector_paused():
        from speech.checkpoint import load_model

        return recogniser_of(load_model(name), threads, options, precision, audio_seconds)


def recogniser_of(
    model: Model,
    threads: int | None,
    options: DecoderOptions,
    precision: str = "float32",
    audio_seconds: float = 0.0,
) -> Recogniser:
    """The same of a model that is loaded."""
    from speech.precision import AUTO, choose_precision
    from speech.transcribe import Recogniser
    from speech.workers import default_device

    if precision == AUTO:
        device = default_device()
        model.modules().to(device)
        precision = choose_precision(model, device, audio_seconds)
    options = options.resolved(model.tokenizer)
    decoder = ready_decoder(options, model.tokenizer)
    unmap_idle_libraries()
    return Recogniser(model, threads, precision, decoder, options.lm)


def ready_decoder(options: DecoderOptions, tokenizer: CharTokenizer) -> BeamDecoder | None:
    """The decoder, compiled; says so where that must be done first. None for greedy."""
    from speech.rescore import load_decoder_and_rescorer

    decoder = load_decoder_and_rescorer(options, tokenizer)
    if decoder is not None and decoder.must_compile():
        note = "speech: compiling the beam search; this takes half a minute, once"
        print(note, file=sys.stderr, flush=True)
        decoder.compile()
    return decoder
