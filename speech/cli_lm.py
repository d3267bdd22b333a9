"""Commands around language models: ``speech lm ...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speech.cli_neural import generate, is_neural, print_neural_perplexity, train_neural
from speech.cli_options import JsonOption
from speech.cli_tune import tune
from speech.errors import LanguageModelError
from speech.progress import progress_bar

if TYPE_CHECKING:
    from speech.language_model import NgramModel
    from speech.lm_train import Trained

app = typer.Typer(no_args_is_help=True, help="Train, measure and tune language models.")

EXACT_BITS = 32
DEFAULT_BITS = 16
BitsOption = Annotated[
    int | None,
    typer.Option(
        help="Of a number in the binary form: 8, 16, or 32 for exact.",
        show_default=str(DEFAULT_BITS),
    ),
]


@app.command()
def train(
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="NAME.arpa, NAME.arpa.gz, or binary; a run's directory."
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT[@WEIGHT]...",
            help="Text files, a sentence a line (also .xz, .gz, or a manifest .jsonl); "
            "neural: also the settings, CONFIG.toml.",
        ),
    ] = None,
    order: Annotated[int, typer.Option(help="Words in the longest n-gram.")] = 4,
    prune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COUNTS|ENTROPY",
            help="Leave out n-grams: up to these counts, by order (0,0,1,1), or that raise the "
            "perplexity by less than this share (2e-8). May be given twice.",
        ),
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(min=1, help="Only the N most frequent words; the rest is <unk>.")
    ] = None,
    weights_from: Annotated[
        Path | None, typer.Option(metavar="TEXT", help="Weigh the texts to suit this one best.")
    ] = None,
    bits: BitsOption = None,
    discount_fallback: Annotated[
        bool, typer.Option("--discount-fallback", help="Allow texts too small for discounts.")
    ] = False,
    neural: Annotated[
        bool, typer.Option("--neural", help="Train an LSTM on characters instead.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="table.key=value", help="Neural: override a setting."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Neural: go on with the run in --output.")
    ] = False,
) -> None:
    """Train an n-gram model with interpolated modified Kneser-Ney smoothing, or a neural one.

    Several texts are one long text, unless each has a weight (books.txt@0.8 chat.txt@0.2) or the
    weights are found with --weights-from: then a model of each is mixed in.

    With --neural the weights are passes per epoch, texts given here take the place of the config's,
    and the output is the directory of a run as of speech train; its best/ is the model. Ctrl-C ends
    it ready to --resume, with exit status 130.
    """
    configs = [Path(text) for text in texts or [] if neural and text.endswith(".toml")]
    if len(configs) > 1:
        raise typer.BadParameter("one CONFIG.toml is all that --neural takes")
    paths, weights = _weighted([text for text in texts or [] if Path(text) not in configs])
    if neural:
        shares = dict(zip(paths, weights or [1.0] * len(paths), strict=True))
        train_neural(shares, output, configs[0] if configs else None, settings or [], resume)
        return
    if settings or resume:
        raise typer.BadParameter("--set and --resume are for --neural")
    if not paths:
        raise typer.BadParameter("needs a TEXT")
    from speech.lm_train import NgramSettings, train_ngram_model

    stored_bits = _stored_bits(output, bits)
    if weights and weights_from is not None:
        raise typer.BadParameter("give weights after @ or --weights-from, not both")
    cutoffs, entropy = _pruning(prune or [])
    estimator = NgramSettings(order, vocabulary, cutoffs, entropy, discount_fallback)
    trained = train_ngram_model(paths, estimator, weights, weights_from, progress_bar)
    _save(trained, output, stored_bits)
    _tell_trained(trained, paths)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(metavar="LM", help="Name, directory or file.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="NAME.arpa, NAME.arpa.gz, or binary.")
    ],
    bits: BitsOption = None,
) -> None:
    """Write an n-gram model in another form: ARPA for other programs, binary to load at once."""
    from speech.language_model import NgramModel, find_language_model

    path, stored_bits = find_language_model(model), _stored_bits(output, bits)
    if output.exists() and output.samefile(path):
        raise LanguageModelError(f"{output}: is what is to be converted; name another --output")
    _save(NgramModel.load(path), output, stored_bits)


app.command()(generate)


@app.command()
def perplexity(
    model: Annotated[str, typer.Argument(metavar="LM", help="Name, directory or file.")],
    texts: Annotated[list[Path], typer.Argument(metavar="TEXT...")],
    as_json: JsonOption = False,
) -> None:
    """Print how well a language model predicts texts, with and without the words it lacks."""
    from speech.language_model import NgramModel, find_language_model
    from speech.lm_text import read_sentences
    from speech.perplexity import measure

    try:
        path = find_language_model(model)
    except LanguageModelError:
        if not is_neural(model):
            raise
        print_neural_perplexity(model, texts, as_json)
        return
    loaded = NgramModel.load(path)
    results = [measure(loaded, read_sentences(text, progress_bar)) for text in texts]
    for text, result in zip(texts, results, strict=True):
        if not result.words:
            raise LanguageModelError(f"{text}: holds no words after normalisation")
        figures: dict[str, Any] = {"lm": str(path), "text": str(text), **result.to_dict()}
        if as_json:
            print(json.dumps(figures))
            continue
        print(
            f"{text}: perplexity {result.perplexity:.2f}, {result.perplexity_without_oov:.2f} "
            f"without unknown words; {result.words} words in {result.sentences} sentences, "
            f"{result.oov_words} unknown ({result.oov_rate:.2%})"
        )


app.command()(tune)


def _weighted(texts: list[str]) -> tuple[list[Path], list[float] | None]:
    """The paths and the weights after ``@``; either all have one or none has."""
    paths, weights = [], []
    for text in texts:
        path, at, weight = text.rpartition("@")
        if not at or Path(text).exists():
            paths.append(Path(text))
            continue
        try:
            weights.append(float(weight))
        except ValueError:
            raise typer.BadParameter(f"{text}: needed a number after @") from None
        paths.append(Path(path))
    if weights and len(weights) != len(paths):
        raise typer.BadParameter("give every text a weight (TEXT@WEIGHT), or none")
    return paths, weights or None


def _pruning(options: list[str]) -> tuple[tuple[int, ...], float | None]:
    """Count cut-offs and the entropy threshold; whole numbers are counts."""
    cutoffs: tuple[int, ...] = ()
    entropy = None
    for option in options:
        numbers = option.split(",")
        try:
            if all(number.strip().isdigit() for number in numbers):
                cutoffs = tuple(int(number) for number in numbers)
            else:
                entropy = float(option)
        except ValueError:
            raise typer.BadParameter(
                f"--prune {option}: needed counts such as 0,0,1 or a share such as 1e-8"
            ) from None
    return cutoffs, entropy


def _stored_bits(output: Path, bits: int | None) -> int | None:
    """Bits of a number in the binary form, None for exact; refuses what would have no effect."""
    from speech.arpa import is_arpa
    from speech.language_model import check_bits

    if output.is_dir():
        raise typer.BadParameter(f"--output: {output} is a directory, needed a file")
    if bits is not None and is_arpa(output):
        raise typer.BadParameter("--bits is for the binary form, which ARPA is not")
    stored = DEFAULT_BITS if bits is None else bits
    chosen = None if stored == EXACT_BITS else stored
    check_bits(chosen)
    return chosen


def _save(made: Trained | NgramModel, output: Path, bits: int | None) -> None:
    from speech.arpa import is_arpa, write_arpa
    from speech.language_model import NgramModel

    output.parent.mkdir(parents=True, exist_ok=True)
    if is_arpa(output):
        with progress_bar(f"writing {output.name}", sum(made.counts)) as advance:
            write_arpa(output, made.tables(), advance)
    else:
        model = made if isinstance(made, NgramModel) else made.model()
        model.save(output, bits)
    counts = ", ".join(f"{count} {n}-grams" for n, count in enumerate(made.counts, 1))
    print(f"{output}: {counts}; {output.stat().st_size / 1e6:.1f} MB")


def _tell_trained(trained: Trained, paths: Sequence[Path]) -> None:
    if trained.weights:
        parts = zip(paths, trained.weights, strict=True)
        _tell("weights: " + ", ".join(f"{path} {weight:.3f}" for path, weight in parts))
    share = trained.unknown_words / trained.words
    _tell(
        f"{trained.words} words of text, {trained.unknown_words} of them ({share:.2%}) unknown to "
        f"the vocabulary; {trained.unspellable} different words hold more than a-z and apostrophes"
    )


def _tell(message: str) -> None:
    print(f"speech: {message}", file=sys.stderr, flush=True)
