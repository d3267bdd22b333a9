"""Configuration: TOML read into flat frozen dataclasses, every key known, every value checked.

A config file has one table a dataclass: ``[features]``, ``[model]``, ``[augment]``, ``[data]`` and
``[train]``. A key that is left out takes its default; a key that does not exist is an error that
names the nearest one. The same file trains a model and, shipped beside its weights, rebuilds it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from speech.errors import ConfigError, reason_of

C = TypeVar("C")  # a dataclass whose fields are dataclasses, one a TOML table

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SCHEDULES = ("constant", "linear", "cosine")
SUBSAMPLINGS = (1, 2, 3, 4, 6, 8)
CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu", "feedforward")
RECURRENT_INITS = ("orthogonal", "identity", "xavier", "small_normal")


@dataclass(frozen=True)
class FeatureConfig:
    """How samples become log-mel frames (see `speech.features`)."""

    sample_rate: int = 16000  # Hz; audio of any other rate is resampled to it
    n_fft: int = 512  # samples in a frame's Fourier transform
    window_samples: int = 400  # 25 ms Hann window, centred in the frame
    hop_samples: int = 160  # 10 ms from frame to frame
    mel_bands: int = 80
    min_hz: float = 20.0
    max_hz: float = 7600.0
    log_floor: float = 1e-8  # mel power below this counts as silence
    mean_window_frames: int = 600  # frames of the past that the moving mean sees
    mean_prior_frames: int = 200  # weight of the training mean while few frames have passed

    def __post_init__(self) -> None:
        require(0 < self.hop_samples <= self.window_samples <= self.n_fft,
                 "0 < hop_samples <= window_samples <= n_fft", self)  # fmt: skip
        require(0 <= self.min_hz < self.max_hz <= self.sample_rate / 2,
                 "0 <= min_hz < max_hz <= sample_rate / 2", self)  # fmt: skip
        require_above_zero(self, "mel_bands", "log_floor", "mean_window_frames")
        require(0 <= self.mean_prior_frames <= self.mean_window_frames,
                 "0 <= mean_prior_frames <= mean_window_frames", self)  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """The network: convolutional subsampling, stacked layers of one kind, a linear layer."""

    subsampling: int = 4  # log-mel frames per output frame, one of SUBSAMPLINGS
    conv_channels: int = 32
    layers: int = 4
    hidden: int = 320  # units per layer and direction
    cell: str = "lstm"  # what the layers are made of, one of CELLS
    bidirectional: bool = True  # feedforward: whether the window also reaches ahead
    # Feedforward: output frames (of subsampling * hop) that the first layer sees before its own,
    # and after it if bidirectional. The other cells remember by themselves.
    context_frames: int = 10
    projection: int = 0  # units of a linear layer after each layer; 0: none
    # Output frames that a recurrent network of one direction sees ahead, above its last layer.
    lookahead_frames: int = 0
    layer_norm: bool = True  # before each layer and before the output
    dropout: float = 0.15  # between layers
    recurrent_init: str = "orthogonal"  # how recurrent weights start, one of RECURRENT_INITS
    forget_bias: float = 1.0  # initial bias of the forget gate of an LSTM

    def __post_init__(self) -> None:
        require(self.subsampling in SUBSAMPLINGS, f"subsampling in {SUBSAMPLINGS}", self)
        require(self.cell in CELLS, f"cell in {CELLS}", self)
        require(self.recurrent_init in RECURRENT_INITS,
                 f"recurrent_init in {RECURRENT_INITS}", self)  # fmt: skip
        require_above_zero(self, "conv_channels", "layers", "hidden")
        require_not_negative(self, "context_frames", "projection", "lookahead_frames")
        one_way = self.cell != "feedforward" and not self.bidirectional
        require(one_way or not self.lookahead_frames,
                 "lookahead_frames = 0 unless a recurrent cell reads one way", self)  # fmt: skip
        require(0 <= self.dropout < 1, "dropout in [0, 1)", self)


@dataclass(frozen=True)
class AugmentConfig:
    """How training utterances are varied; probabilities are per utterance."""

    speed_factors: tuple[float, ...] = (0.9, 1.0, 1.1)  # one is drawn; 1.0 leaves the file as it is
    gain_db: float = 6.0  # level changed by a uniform draw from -gain_db to +gain_db
    noise_probability: float = 0.3
    noise_snr_db: tuple[float, ...] = (8.0, 30.0)  # lowest and highest signal-to-noise ratio
    # Up to so much of a room's silence at either end, at none in half of the draws: other cutting.
    edge_seconds: float = 0.0
    time_masks: int = 4  # at most; scaled down on short utterances
    time_mask_frames: int = 40
    time_mask_share: float = 0.15  # of the utterance, for all masks together
    frequency_masks: int = 2
    frequency_mask_bands: int = 20
    band_warp: float = 0.0  # bands are stretched or squeezed by up to this share: other voices
    # Deviation of a random smooth filter over the bands, in those of a band: other microphones.
    equaliser: float = 0.0

    def __post_init__(self) -> None:
        require(len(self.speed_factors) > 0 and min(self.speed_factors) >= 0.01,
                 "at least one of speed_factors, and each at least 0.01", self)  # fmt: skip
        require(0 <= self.noise_probability <= 1, "noise_probability in [0, 1]", self)
        require(len(self.noise_snr_db) == 2 and self.noise_snr_db[0] <= self.noise_snr_db[1],
                 "noise_snr_db as [lowest, highest]", self)  # fmt: skip
        require_not_negative(self, "gain_db", "edge_seconds", "time_masks", "time_mask_frames",
                             "frequency_masks", "frequency_mask_bands")  # fmt: skip
        require(0 <= self.time_mask_share <= 1, "time_mask_share in [0, 1]", self)
        require(0 <= self.band_warp < 1, "band_warp in [0, 1)", self)
        require_not_negative(self, "equaliser")


@dataclass(frozen=True)
class SourcesConfig:
    """Which files are trained on, relative to ``root`` (itself relative to the config file)."""

    root: str = "."
    train: Mapping[str, float] = field(default_factory=dict)  # file -> passes per epoch
    cache: str = ""  # directory for what is read: decoded audio, normalised texts; empty: none

    def __post_init__(self) -> None:
        require(all(share > 0 for share in self.train.values()),
                 "passes per epoch above zero for every file in train", self)  # fmt: skip


@dataclass(frozen=True)
class DataConfig(SourcesConfig):
    """Which manifests are trained on, and which judge."""

    dev: tuple[str, ...] = ()
    min_seconds: float = 0.1  # shorter and longer training utterances are left out, and counted
    max_seconds: float = 25.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.min_seconds < self.max_seconds, "0 <= min_seconds < max_seconds", self)


@dataclass(frozen=True)
class LoopConfig:
    """How weights are found, whatever is learned (see `speech.trainer`)."""

    seed: int = 1
    epochs: int = 30  # that the schedule is laid out for
    end_epoch: int = 0  # end after this one, whatever the schedule; 0: after the last
    learning_rate: float = 1e-3  # the peak, after warm-up
    warmup_steps: int = 500
    schedule: str = "cosine"  # from the peak to learning_rate_floor over the epochs
    learning_rate_floor: float = 1e-5
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    ema_decay: float = 0.999  # exponential moving average of the weights; 0: off
    precision: str = "auto"  # auto: bfloat16 where the processor has it, else float32
    evaluate_every: int = 1  # epochs between validations
    patience: int = 10  # validations without a better figure before stopping; 0: never stop early
    max_bad_steps: int = 20  # non-finite losses in a row before giving up
    checkpoint_minutes: float = 10.0  # the last checkpoint is also written this often in an epoch
    worker_timeout_minutes: float = 10.0  # that a worker may keep the others waiting

    def __post_init__(self) -> None:
        require(self.precision in PRECISIONS, f"precision in {PRECISIONS}", self)
        require(self.schedule in SCHEDULES, f"schedule in {SCHEDULES}", self)
        require_above_zero(self, "epochs", "learning_rate", "clip_norm", "evaluate_every",
                           "max_bad_steps", "worker_timeout_minutes")  # fmt: skip
        require(0 <= self.ema_decay < 1, "ema_decay in [0, 1)", self)
        require(0 <= self.end_epoch <= self.epochs, "0 <= end_epoch <= epochs", self)
        require_not_negative(self, "seed", "warmup_steps", "learning_rate_floor", "weight_decay",
                             "patience", "checkpoint_minutes")  # fmt: skip

    @property
    def last_epoch(self) -> int:
        """The number of epochs after which a run ends, unless it loses patience."""
        return self.end_epoch or self.epochs


@dataclass(frozen=True)
class AudioLoopConfig(LoopConfig):
    """The loop's settings and the size of a batch of utterances."""

    batch_seconds: float = 160.0  # audio in one optimiser step, padding included, over all workers

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero(self, "batch_seconds")


@dataclass(frozen=True)
class TrainConfig(AudioLoopConfig):
    """How the recogniser's weights are found: the loop's settings and its own."""

    # Model (directory or shipped name) or run of `speech pretrain` whose weights begin; empty:
    # random. A network of one direction may begin with the forward direction of a bidirectional
    # one. Also understood as model.init_from.
    init_from: str = ""
    # Layers taken from a run of `speech pretrain`, from the first on, besides the convolutions: the
    # last ones have learned what only forecasts need. 0: all of them.
    init_layers: int = 0
    # Share of the weights that training began with in those that are judged and kept; the rest is
    # the training's own. Often fewer errors than either alone (weight-space ensembles, Wortsman et
    # al., 2022, eq. 1). 0: none.
    init_share: float = 0.0
    # Weight of the agreement of two differently masked views of each utterance (CR-CTC, Yao et al.
    # 2024, who take 0.2); a step then computes every utterance twice. 0: one view.
    consistency: float = 0.0
    # Output frames that gradients travel back at most, the state being carried on (truncated
    # back-propagation through time, for networks of one direction); 0: to the beginning.
    bptt_frames: int = 0
    # Output frames that the loss's gradient is followed back at each validation, for the figure
    # gradient_horizon_frames (`speech.gradients`); 0: not measured.
    horizon_frames: int = 100
    easy_first_epochs: int = 1  # epochs in order of length before shuffling (curriculum)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.init_layers or self.init_from != "",
                "init_layers = 0 unless there is an init_from", self)  # fmt: skip
        require(0 <= self.init_share < 1, "init_share in [0, 1)", self)
        require(not self.init_share or self.init_from != "",
                "init_share = 0 unless there is an init_from", self)  # fmt: skip
        require_not_negative(self, "init_layers", "consistency", "bptt_frames", "horizon_frames",
                             "easy_first_epochs")  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that defines a training run and the model that comes of it."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file into a `Config`, as `load_config_of` says."""
    return load_config_of(Config, path, overrides)


def load_config_of(kind: type[C], path: Path | str | None, overrides: Sequence[str] = ()) -> C:
    """Read a TOML file into a dataclass of tables; ``overrides`` are ``table.key=value`` in TOML.

    Without a file there are the defaults and what overrides them. Raises `ConfigError` for a
    missing or malformed file, an unknown key (naming the nearest known one), a value of the wrong
    type or out of range.
    """
    tables = read_tables(Path(path)) if path is not None else {}
    _move_aliases(tables, str(path))
    for override in overrides:
        _apply_override(tables, override)
    return _from_dict(kind, tables, str(path or "--set"))


# A key's other name -> its place: the first weights are a matter of the model as of its training.
_ALIASES = {("model", "init_from"): ("train", "init_from")}


def _move_aliases(tables: dict[str, Any], source: str) -> None:
    for (table, key), (own_table, own_key) in _ALIASES.items():
        if not isinstance(tables.get(table), dict) or key not in tables[table]:
            continue
        own = tables.setdefault(own_table, {})
        if own_key in own:
            raise ConfigError(f"{source}: {table}.{key} and {own_table}.{own_key} are the same key")
        own[own_key] = tables[table].pop(key)


def read_tables(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds, unchecked. Raises `ConfigError` where it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the config: {reason_of(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def config_from_dict(tables: Mapping[str, Any], source: str = "config") -> Config:
    """Build a `Config` from nested plain data, as `load_config` does."""
    return _from_dict(Config, tables, source)


def _from_dict(kind: type[C], tables: Mapping[str, Any], source: str) -> C:
    hints = get_type_hints(kind)
    for name in tables:
        if name not in hints:
            raise ConfigError(_unknown(f"{source}: unknown table [{name}]", name, hints))
    parts = {name: _table(hints[name], table, f"{source}: [{name}]")
             for name, table in tables.items()}  # fmt: skip
    try:
        return kind(**parts)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def unknown_keys(kind: type[Any], tables: Mapping[str, Any]) -> list[str]:
    """Return the ``table.key`` names of what was read that a dataclass of tables does not have."""
    parts = get_type_hints(kind)
    return [
        f"{name}.{key}"
        for name, table in tables.items()
        for key in (table if isinstance(table, Mapping) else ())
        if name not in parts or key not in get_type_hints(parts[name])
    ]


def dump_config(config: Any) -> str:
    """Return a dataclass of tables as TOML that `load_config_of` reads back to an equal value."""
    lines: list[str] = []
    for part in dataclasses.fields(config):
        value = dataclasses.asdict(getattr(config, part.name))
        tables = {key: item for key, item in value.items() if isinstance(item, dict)}
        lines.append(f"[{part.name}]")
        lines += [f"{key} = {_toml(item)}" for key, item in value.items() if key not in tables]
        for key, table in tables.items():
            lines += ["", f"[{part.name}.{key}]"]
            lines += [f"{_toml(name)} = {_toml(item)}" for name, item in table.items()]
        lines.append("")
    return "\n".join(lines)


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    tuple: "a list",
    Mapping: "a table",
}


def _table(kind: type[Any], table: object, source: str) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{source}: needs a table of keys, got {table!r}")
    hints = get_type_hints(kind)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise ConfigError(_unknown(f"{source}: unknown key {key!r}", key, hints))
        values[key] = _convert(hints[key], value, f"{source} {key}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _convert(kind: Any, value: Any, source: str) -> Any:
    """Return `value` as `kind`, accepting an int where a float is meant, or raise `ConfigError`."""
    origin = get_origin(kind)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(get_args(kind)[0], item, source) for item in value)
    if origin is Mapping and isinstance(value, Mapping):
        return {str(k): _convert(get_args(kind)[1], v, f"{source}.{k}") for k, v in value.items()}
    if kind is float and type(value) in (int, float) and not math.isnan(value):
        return float(value)
    if kind is not float and type(value) is kind:
        return value
    raise ConfigError(f"{source}: needs {_TYPE_NAMES[origin or kind]}, got {value!r}")


def _apply_override(tables: dict[str, Any], override: str) -> None:
    """Set ``table.key=value`` in `tables`; a value that is no TOML is taken as a string.

    What follows the second dot is one name, as in ``data.train.corpus/train.jsonl=0.5``.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".", 2)
    if not equals or len(keys) < 2:
        raise ConfigError(f"--set {override!r}: needs the form table.key=value")
    keys = list(_ALIASES.get((keys[0], keys[1]), keys))
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tables
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {key!r} is {table!r}, not a table of keys")
    table[keys[-1].strip('"')] = value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _unknown(message: str, name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"{message}; did you mean {near[0]!r}?" if near else message


def require(condition: bool, need: str, table: Any) -> None:
    """Raise `ConfigError` unless `condition` holds, with the values of the keys in `need`."""
    if not condition:
        words = set(re.findall(r"\w+", need))
        names = [f.name for f in dataclasses.fields(table) if f.name in words]
        got = ", ".join(f"{name} = {getattr(table, name)!r}" for name in names)
        raise ConfigError(f"needs {need}, got {got}")


def require_above_zero(table: Any, *keys: str) -> None:
    """Raise `ConfigError` for the first of `keys` that is zero or less."""
    for key in keys:
        require(getattr(table, key) > 0, f"{key} above zero", table)


def require_not_negative(table: Any, *keys: str) -> None:
    """Raise `ConfigError` for the first of `keys` that is less than zero."""
    for key in keys:
        require(getattr(table, key) >= 0, f"{key} of at least 0", table)


def config_differences(stored: str, config: Any) -> set[str]:
    """Return the ``table.key`` names in which a dumped config and `config` differ."""
    other = _from_dict(type(config), tomllib.loads(stored), "stored config")
    return {
        f"{part.name}.{key.name}"
        for part in dataclasses.fields(config)
        for key in dataclasses.fields(getattr(config, part.name))
        if getattr(getattr(config, part.name), key.name)
        != getattr(getattr(other, part.name), key.name)
    }
