"""What is kept of a study: its figures as JSON, its pictures beside them, its table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech.errors import SpeechError
from speech.results import finite, write_json
from speech.study_plots import (
    plot_cells,
    plot_classification,
    plot_layers,
    plot_pretraining,
    plot_radius,
    plot_trials,
    plot_voice,
)
from speech.study_tables import (
    Figures,
    cells_table,
    classification_table,
    gradients_table,
    pretraining_table,
    trials_table,
    voice_table,
)


@dataclass(frozen=True)
class Kind:
    """How a kind of study is shown; pictures by what their names have after the JSON file's."""

    table: Callable[[Figures], Iterator[str]]
    pictures: Mapping[str, Callable[[Figures, Path], None]]


KINDS = {  # by a key that only figures of this kind have
    "encoders": Kind(cells_table, {"": plot_cells}),
    "trials": Kind(trials_table, {"": plot_trials}),
    "amounts": Kind(pretraining_table, {"": plot_pretraining}),
    "radius": Kind(gradients_table, {"": plot_radius, "-layers": plot_layers}),
    "classifiers": Kind(classification_table, {"": plot_classification}),
    "detectors": Kind(voice_table, {"": plot_voice}),
}


def store_study(figures: Figures, path: Path) -> None:
    """Write figures as JSON, and their pictures beside them."""
    write_json(path, figures)
    draw_study(figures, path)


def read_study(path: Path) -> dict[str, Any]:
    """Return stored figures. Raises `SpeechError` for a file that holds none."""
    try:
        figures = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SpeechError(f"{path}: cannot be read: {(error.strerror or '').lower()}") from error
    except ValueError as error:
        raise SpeechError(f"{path}: not JSON: {error}") from error
    if not isinstance(figures, dict) or not KINDS.keys() & figures.keys():
        raise SpeechError(f"{path}: not a study's figures: needs one of {', '.join(KINDS)}")
    return figures


def draw_study(figures: Figures, path: Path) -> list[Path]:
    """Draw the pictures of the figures that are stored at `path` beside it; return where."""
    drawn = []
    for suffix, draw in _kind(figures).pictures.items():
        drawn.append(path.with_name(f"{path.stem}{suffix}.png"))
        draw(_plain(figures), drawn[-1])
    return drawn


def study_table(figures: Figures) -> Iterator[str]:
    """Yield the lines of a study's table."""
    yield from _kind(figures).table(_plain(figures))


def _kind(figures: Figures) -> Kind:
    return next(kind for key, kind in KINDS.items() if key in figures)


def _plain(figures: Figures) -> dict[str, Any]:
    """Return what would be read back."""
    plain: dict[str, Any] = json.loads(json.dumps(finite(figures)))
    return plain
