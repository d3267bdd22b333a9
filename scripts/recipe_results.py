"""The recipes that were tried: one row a training, made from the files that the training and its
evaluations left, and models/RESULTS.md from the rows.

    speech evaluate DEV.jsonl --model runs/x/best [--lm LM] --output dev.json        (and so on)
    python scripts/recipe_results.py NAME --config models/x/config.toml --change "one thing" \
        [--after EARLIER_ROW] --run runs/x --on "2 CPU cores" --result dev.json ... \
        --command "speech train ..."
    python scripts/recipe_results.py                       (the table anew)

A row of the same name gives way, except that its figures stay where no new ones are given. No
number is typed: seed and data are the config's, hours the run's, figures those of stored results or
of a shipped model's metrics.json, parameters those of the network that the config describes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command import read_json, run_command
from processes import REPOSITORY

from speech.config import load_config
from speech.errors import SpeechError
from speech.metrics import sum_errors
from speech.results import NO_LANGUAGE_MODEL, Evaluation, error_figures, read_results, write_json

ROWS = REPOSITORY / "models" / "results.json"
TABLE = REPOSITORY / "models" / "RESULTS.md"
BEGIN, END = "<!-- results.json begins -->", "<!-- results.json ends -->"
DEV, TEST = "mini-librispeech/dev", "speechocean762/test"
APART = "6848"  # the dev speaker that nothing is chosen by
MISSING = "not measured"
HEAD = ("row", "what is new", "begins with", "config", "seed", "parameters", "training, h",
        "audio heard, h", "dev, greedy", "6848, greedy", "dev, LM", "6848, LM",
        "speechocean762, greedy", "speechocean762, LM")  # fmt: skip
Row = Mapping[str, Any]


def run_figures(run: Path) -> dict[str, float]:
    """Return the hours that a run took and the hours of audio it heard, validations left out."""
    epochs = read_json(run / "history.json")
    return {
        "epochs": len(epochs),
        "training_hours": sum(epoch["wall_seconds"] for epoch in epochs) / 3600,
        "audio_hours": sum(epoch["audio_seconds"] for epoch in epochs) / 3600,
        "validation_wer": min(epoch["dev_wer"] for epoch in epochs if "dev_wer" in epoch),
    }


def count_parameters(config: Path) -> int:
    """Return the number of weights of the network that a config describes."""
    from speech.checkpoint import create_model
    from speech.tokenizer import CharTokenizer

    network = create_model(load_config(config), CharTokenizer()).network
    return sum(parameter.numel() for parameter in network.parameters())


def result_figures(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return a stored result's figures by manifest and language model; dev with 6848 apart."""
    greedy = evaluation.lm == NO_LANGUAGE_MODEL
    found: dict[str, dict[str, Any]] = {}
    for corpus in sorted({score.corpus or "" for score in evaluation.scores}):
        scores = [score for score in evaluation.scores if (score.corpus or "") == corpus]
        figures = error_figures(scores) | {"lm": evaluation.lm, "normaliser": evaluation.normaliser}
        apart = [score.words for score in scores if score.speaker == APART]
        if corpus == DEV and apart:
            words = sum_errors(apart)
            figures["apart"] = {"wer": words.rate, "words": words.reference_length}
        found[f"{corpus}, {'greedy' if greedy else 'LM'}"] = figures
    return found


def shipped_figures(metrics: Path) -> dict[str, dict[str, Any]]:
    """Return the figures in a model's metrics.json in the same form."""
    rows = read_json(metrics)
    return {
        f"{name}, {'greedy' if row['lm'] == NO_LANGUAGE_MODEL else 'LM'}": row
        for name, row in rows.items()
        if name in (DEV, TEST)
    }


# --- The table ------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Return the rows as markdown: the figures, then what is too long for a column."""
    lines = [HEAD, ["---"] * len(HEAD), *(_cells(row) for row in rows)]
    drawn = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    notes = "\n".join(
        f"- **{row['name']}**: {_data(row)}; {row['epochs']} epochs on {row['on']}; "
        f"{100 * row['validation_wer']:.2f} in its best validation. `{row['command']}`"
        for row in rows
    )
    return f"{drawn}\n\n{notes}"


def _cells(row: Row) -> list[str]:
    figures = row["figures"]
    rates = []
    for kind in ("greedy", "LM"):
        dev = figures.get(f"{DEV}, {kind}", {})
        rates += [_rate(dev), _rate(dev.get("apart", {}))]
    rates += [_rate(figures.get(f"{TEST}, {kind}", {})) for kind in ("greedy", "LM")]
    config = load_config(REPOSITORY / row["config"])
    link = f"[{Path(row['config']).name}]({Path(row['config']).relative_to('models')})"
    return [row["name"], row["change"], row["after"] or "random weights", link,
            str(config.train.seed), f"{row['parameters']:,}", f"{row['training_hours']:.2f}",
            f"{row['audio_hours']:.1f}", *rates]  # fmt: skip


def _rate(figures: Row) -> str:
    if "wer" not in figures:
        return MISSING
    if "wer_interval" not in figures:
        return f"{100 * figures['wer']:.2f}"
    low, high = figures["wer_interval"]
    return f"{100 * figures['wer']:.2f} ({100 * low:.1f} to {100 * high:.1f})"


def _data(row: Row) -> str:
    passes = load_config(REPOSITORY / row["config"]).data.train
    return ", ".join(f"{Path(name).parent} {share:g}" for name, share in passes.items())


def written(text: str, rows: Sequence[Row]) -> str:
    """Return the document with the table of the rows between its marker lines."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}"


# --- Adding rows ----------------------------------------------------------------------------------


def read_rows() -> list[dict[str, Any]]:
    return list(read_json(ROWS)) if ROWS.is_file() else []


def new_row(arguments: argparse.Namespace, earlier: Row) -> dict[str, Any]:
    """Return the row of a training; an `earlier` one's figures stay where there are no new ones."""
    config = arguments.config.resolve()
    if not config.is_relative_to(REPOSITORY / "models"):
        raise SpeechError(f"{arguments.config}: needed a file below {REPOSITORY / 'models'}")
    figures = dict(earlier.get("figures", {}))
    for path in arguments.metrics:
        figures |= shipped_figures(path)
    for path in arguments.result:
        figures |= result_figures(read_results(path))
    return {
        "name": arguments.name,
        "change": arguments.change,
        "after": arguments.after,
        "config": str(config.relative_to(REPOSITORY)),
        "command": arguments.command,
        "on": arguments.on,
        "parameters": count_parameters(arguments.config),
        **run_figures(arguments.run),
        "figures": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", nargs="?")
    parser.add_argument("--config", type=Path, help="a file below models/")
    parser.add_argument("--change", help="the one thing that is new")
    parser.add_argument("--after", default="", metavar="ROW", help="whose weights it begins with")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--command", help="what repeats the training")
    parser.add_argument("--on", metavar="MACHINE", help="in general terms: '2 CPU cores'")
    parser.add_argument("--result", type=Path, action="append", default=[], metavar="FILE.json",
                        help="a stored result of `speech evaluate --output`")  # fmt: skip
    parser.add_argument("--metrics", type=Path, action="append", default=[],
                        metavar="metrics.json", help="figures of a shipped model")  # fmt: skip
    arguments = parser.parse_args()
    rows = read_rows()
    if arguments.name is not None:
        needed = ("config", "change", "run", "command", "on")
        if missing := [f"--{name}" for name in needed if not getattr(arguments, name)]:
            parser.error(f"a row also needs {', '.join(missing)}")
        names = [row["name"] for row in rows]
        place = names.index(arguments.name) if arguments.name in names else len(rows)
        rows[place : place + 1] = [new_row(arguments, rows[place] if place < len(rows) else {})]
        write_json(ROWS, rows)
    TABLE.write_text(written(TABLE.read_text("utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
