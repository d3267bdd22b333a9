"""The command that turns corpora into manifests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from speech.progress import progress_bar


def prepare(
    corpus: Annotated[str, typer.Argument(help="Name of the corpus or layout; 'list' shows all.")],
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where it lies, or its archive.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where the manifests go.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download and unpack it into DIR first.")
    ] = False,
    part: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Only this; may be repeated.")
    ] = None,
) -> None:
    """Turn a corpus into manifests, one a split.

    A download that was interrupted goes on where it stopped; it is verified and unpacked whole or
    not at all. The packed files stay in DIR: delete them when you like.
    """
    from speech.corpora import CORPORA, fetch
    from speech.corpora import prepare as run

    if corpus == "list":
        for name, known in CORPORA.items():
            print(f"{name:20} {known.description}")
        return
    if directory is None or output is None:
        raise typer.BadParameter("needs a directory DIR and --output DIR")
    with _bars() as progress:
        if download:
            fetch(corpus, directory, part or (), progress)
        splits = run(corpus, directory, output, progress, part or ())
    for split in splits:
        hours = split.seconds / 3600
        print(f"{split.manifest}: {split.utterances} utterances, {hours:.2f} h")
        for warning in split.warnings:
            print(f"speech: {split.name}: {warning}", file=sys.stderr, flush=True)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what is done, how much, of how much) that shows one bar after the other."""
    with ExitStack() as stack:
        label, last = "", 0
        advance: Callable[[float], None] | None = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal label, last, advance
            if advance is None or what != label or done < last:
                stack.close()
                advance = stack.enter_context(progress_bar(what, total))
                label, last = what, 0
            advance(done - last)
            last = done

        yield show
