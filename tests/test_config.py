"""Every key is known, every value checked, and a config survives being written down."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.config import (
    CELLS,
    PRECISIONS,
    RECURRENT_INITS,
    SCHEDULES,
    SUBSAMPLINGS,
    AugmentConfig,
    Config,
    DataConfig,
    FeatureConfig,
    ModelConfig,
    TrainConfig,
    config_differences,
    config_from_dict,
    dump_config,
    load_config,
)
from speech.errors import ConfigError


def load(path: Path, text: str, *overrides: str) -> Config:
    file = path / "config.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, overrides)


def error_of(path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def plain(config: Config) -> dict[str, dict[str, Any]]:
    return dataclasses.asdict(config)


# --- Reading --------------------------------------------------------------------------------------


def test_nothing_said_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_read_values(tmp_path: Path) -> None:
    text = """
    [model]
    layers = 2
    dropout = 0  # a whole number where a real one is meant
    [augment]
    speed_factors = [1, 1.5]
    [data]
    dev = ["a/dev.jsonl", "b/dev.jsonl"]
    [data.train]
    "a/train.jsonl" = 1
    "b/train.jsonl" = 0.25
    """
    config = load(tmp_path, text)
    assert config.model == ModelConfig(layers=2, dropout=0.0)
    assert isinstance(config.model.dropout, float)
    assert config.augment.speed_factors == (1.0, 1.5)
    assert config.data.dev == ("a/dev.jsonl", "b/dev.jsonl")
    assert config.data.train == {"a/train.jsonl": 1.0, "b/train.jsonl": 0.25}
    assert config.train == TrainConfig()


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read the config: no such file"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(tmp_path)
    assert "not valid TOML" in error_of(tmp_path, "[model\nlayers = 2")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "binary.toml")


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wrong", "nearest"),
    [
        ("[modle]\nlayers = 2", "modle", "model"),
        ("[model]\nlayer = 2", "layer", "layers"),
        ("[train]\nlerning_rate = 1e-3", "lerning_rate", "learning_rate"),
        ("[features]\nmel_band = 80", "mel_band", "mel_bands"),
        ("[augment]\nnoise_snr = [8, 30]", "noise_snr", "noise_snr_db"),
        ("[data]\ntrian = {}", "trian", "train"),
    ],
)
def test_unknown_key_names_the_nearest(tmp_path: Path, text: str, wrong: str, nearest: str) -> None:
    message = error_of(tmp_path, text)
    assert "config.toml" in message
    assert "unknown" in message
    assert wrong in message
    assert f"did you mean {nearest!r}?" in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model = 3", ["[model]", "table", "3"]),
        ("[model]\nlayers = 2.0", ["[model] layers", "whole number", "2.0"]),
        ("[model]\nlayers = true", ["[model] layers", "whole number", "True"]),
        ("[model]\nbidirectional = 1", ["bidirectional", "true or false", "1"]),
        ('[model]\ndropout = "0.1"', ["dropout", "a number", "'0.1'"]),
        ("[model]\ndropout = false", ["dropout", "a number", "False"]),
        ("[model]\ndropout = nan", ["dropout", "a number", "nan"]),
        ("[train]\nprecision = 16", ["precision", "a string", "16"]),
        ("[data]\ndev = 'a.jsonl'", ["dev", "a list", "'a.jsonl'"]),
        ("[data]\ndev = {}", ["dev", "a list", "{}"]),
        ("[data]\ndev = [1]", ["dev", "a string", "1"]),
        ("[data]\ntrain = ['a.jsonl']", ["train", "a table", "['a.jsonl']"]),
        ("[data.train]\n'a.jsonl' = 'all'", ["train.a.jsonl", "a number", "'all'"]),
        ("[augment]\nspeed_factors = 1.0", ["speed_factors", "a list", "1.0"]),
    ],
)
def test_wrong_type(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = error_of(tmp_path, text)
    for part in ("config.toml", *parts):
        assert part in message


OUT_OF_RANGE = [
    ("features", "hop_samples = 0"),
    ("features", "hop_samples = 401"),
    ("features", "window_samples = 513"),
    ("features", "min_hz = -1.0"),
    ("features", "min_hz = 7600.0"),
    ("features", "max_hz = 8001.0"),
    ("features", "sample_rate = 8000"),
    ("features", "mel_bands = 0"),
    ("features", "log_floor = 0"),
    ("features", "mean_window_frames = 0"),
    ("features", "mean_prior_frames = 601"),
    ("features", "mean_prior_frames = -1"),
    ("model", "subsampling = 5"),
    ("model", "conv_channels = 0"),
    ("model", "layers = 0"),
    ("model", "hidden = 0"),
    ("model", "projection = -1"),
    ("model", "dropout = 1.0"),
    ("model", "dropout = -0.1"),
    ("augment", "speed_factors = []"),
    ("augment", "speed_factors = [0.9, 0.0]"),
    ("augment", "noise_probability = 1.5"),
    ("augment", "noise_snr_db = [30, 8]"),
    ("augment", "noise_snr_db = [8]"),
    ("augment", "gain_db = -1"),
    ("augment", "time_masks = -1"),
    ("augment", "time_mask_frames = -1"),
    ("augment", "time_mask_share = -0.1"),
    ("augment", "time_mask_share = 1.1"),
    ("augment", "frequency_masks = -1"),
    ("augment", "frequency_mask_bands = -1"),
    ("augment", "band_warp = 1.0"),
    ("augment", "equaliser = -0.1"),
    ("augment", "edge_seconds = -0.1"),
    ("data", "min_seconds = -1"),
    ("data", "min_seconds = 25"),
    ("data", "train = {'a.jsonl' = 0}"),
    ("train", "seed = -1"),
    ("train", "epochs = 0"),
    ("train", "batch_seconds = 0"),
    ("train", "learning_rate = 0"),
    ("train", "clip_norm = 0"),
    ("train", "warmup_steps = -1"),
    ("model", "cell = 'transformer'"),
    ("model", "context_frames = -1"),
    ("model", "lookahead_frames = -1"),
    ("model", "lookahead_frames = 2"),  # of a bidirectional network
    ("model", "recurrent_init = 'zeros'"),
    ("train", "schedule = 'step'"),
    ("train", "learning_rate_floor = -1"),
    ("train", "weight_decay = -1"),
    ("train", "ema_decay = 1.0"),
    ("train", "precision = 'int8'"),
    ("train", "consistency = -0.1"),
    ("train", "bptt_frames = -1"),
    ("train", "horizon_frames = -1"),
    ("train", "end_epoch = 31"),
    ("train", "easy_first_epochs = -1"),
    ("train", "evaluate_every = 0"),
    ("train", "patience = -1"),
    ("train", "max_bad_steps = 0"),
    ("train", "init_layers = -1"),
    ("train", "init_share = 1.0"),
    ("train", "checkpoint_minutes = -1"),
    ("train", "worker_timeout_minutes = 0"),
]


@pytest.mark.parametrize(("table", "line"), OUT_OF_RANGE)
def test_out_of_range(tmp_path: Path, table: str, line: str) -> None:
    key = line.split(" = ")[0]
    message = error_of(tmp_path, f"[{table}]\n{line}")
    assert f"config.toml: [{table}]: needs" in message
    assert f"{key} = " in message  # what was got


def test_every_number_has_a_range() -> None:
    """A key without a line in OUT_OF_RANGE is one that any value of its type fits."""
    free = {("model", "bidirectional"), ("model", "layer_norm"), ("model", "forget_bias"),
            ("data", "root"), ("data", "dev"), ("data", "cache"),
            ("features", "n_fft"), ("data", "max_seconds"), ("train", "init_from")}  # fmt: skip
    tested = {(table, line.split(" = ")[0]) for table, line in OUT_OF_RANGE}
    keys = {(part, key) for part, table in plain(Config()).items() for key in table}
    assert keys == tested | free


# --- Overrides ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        (" train.epochs = 3", "train", "epochs", 3),
        ("train.learning_rate=3e-4", "train", "learning_rate", 3e-4),
        ("train.precision=bfloat16", "train", "precision", "bfloat16"),
        ('train.precision="bfloat16"', "train", "precision", "bfloat16"),
        ("model.bidirectional=false", "model", "bidirectional", False),
        ("augment.noise_snr_db=[5, 20]", "augment", "noise_snr_db", (5.0, 20.0)),
        ("data.root=/some/where=else", "data", "root", "/some/where=else"),
        ("data.cache=", "data", "cache", ""),
        ("data.cache= a place ", "data", "cache", "a place"),
        ("data.dev=[]", "data", "dev", ()),
    ],
)
def test_override(tmp_path: Path, override: str, table: str, key: str, value: object) -> None:
    config = load(tmp_path, "[train]\nepochs = 9\n[data]\nroot = 'a'\ndev = ['b']", override)
    assert getattr(getattr(config, table), key) == value


@pytest.mark.parametrize("name", ["a/b.jsonl", "c.d/e.f.jsonl", "plain"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_override_of_a_training_manifest_keeps_its_dots(
    tmp_path: Path, name: str, quote: str
) -> None:
    text = '[data.train]\n"a/b.jsonl" = 1.0\n"other.jsonl" = 0.5'
    config = load(tmp_path, text, f"data.train.{quote}{name}{quote}=0.25")
    assert config.data.train == {"a/b.jsonl": 1.0, "other.jsonl": 0.5} | {name: 0.25}


def test_later_override_wins_and_unset_table_is_made(tmp_path: Path) -> None:
    config = load(tmp_path, "", "train.epochs=3", "train.epochs=4", "data.train.a.jsonl=1")
    assert config.train.epochs == 4
    assert config.data.train == {"a.jsonl": 1.0}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.epochs", "needs the form table.key=value"),
        ("epochs=3", "needs the form table.key=value"),
        ("train.epoch=3", "did you mean 'epochs'?"),
        ("trian.epochs=3", "did you mean 'train'?"),
        ("train.epochs=many", "needs a whole number, got 'many'"),
        ("train.epochs.first=3", "'epochs' is 9, not a table of keys"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, part: str) -> None:
    assert part in error_of(tmp_path, "[train]\nepochs = 9", override)


# --- Writing --------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
positive = st.floats(1e-9, 1e9)
not_negative = st.floats(0, 1e9)
counts = st.integers(0, 10**6)


@st.composite
def feature_configs(draw: st.DrawFn) -> FeatureConfig:
    hop, window, n_fft = sorted(draw(st.lists(st.integers(1, 4096), min_size=3, max_size=3)))
    prior, mean_window = sorted(draw(st.lists(st.integers(1, 999), min_size=2, max_size=2)))
    rate = draw(st.integers(4000, 96000))
    low, high = draw(st.floats(0, 999)), draw(st.floats(1000, 2000))
    return FeatureConfig(rate, n_fft, window, hop, draw(st.integers(1, 200)), low, high,
                         draw(positive), mean_window, prior)  # fmt: skip


configs = st.builds(
    Config,
    features=feature_configs(),
    model=st.builds(
        ModelConfig, st.sampled_from(SUBSAMPLINGS), *[st.integers(1, 999)] * 3,
        st.sampled_from(CELLS), st.booleans(), counts, counts, st.just(0), st.booleans(),
        st.floats(0, 0.99), st.sampled_from(RECURRENT_INITS), st.floats(allow_nan=False),
    ),
    augment=st.builds(
        AugmentConfig,
        speed_factors=st.lists(st.floats(0.01, 9), min_size=1, max_size=3).map(tuple),
        noise_snr_db=st.tuples(st.floats(-99, 0), st.floats(0, 99)),
        gain_db=not_negative, time_masks=counts,
    ),
    data=st.builds(
        DataConfig, root=texts, train=st.dictionaries(texts, positive, max_size=3),
        dev=st.lists(texts, max_size=3).map(tuple), min_seconds=st.floats(0, 1),
        max_seconds=st.floats(2, math.inf), cache=texts,
    ),
    train=st.builds(
        TrainConfig, seed=counts, init_from=texts, precision=st.sampled_from(PRECISIONS),
        schedule=st.sampled_from(SCHEDULES), learning_rate=positive, patience=counts,
    ),
)  # fmt: skip


@given(configs)
@settings(deadline=None, max_examples=100)
def test_written_config_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    written = dump_config(config)
    assert load(tmp_path_factory.mktemp("config"), written) == config
    assert config_differences(written, config) == set()


def test_plain_data_makes_a_config() -> None:
    config = Config(model=ModelConfig(layers=7), data=DataConfig(train={"a.jsonl": 2.0}))
    assert config_from_dict(plain(config)) == config


def test_differences_are_named() -> None:
    stored = dump_config(Config())
    other = Config(train=TrainConfig(epochs=1, seed=5), data=DataConfig(dev=("x",)))
    assert config_differences(stored, other) == {"train.epochs", "train.seed", "data.dev"}
