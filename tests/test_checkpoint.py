"""Models and training states survive the disk; whatever is damaged is one clear line."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.calibration import CALIBRATION_FILE, Calibration, WordTimes
from speech.checkpoint import (
    TOKENS_FILE,
    WEIGHTS_FILE,
    Model,
    average_weights,
    create_model,
    find_initial,
    find_model,
    load_model,
    load_state,
    replace_file,
    save_model,
    save_state,
    start_from,
)
from speech.confidence import ConfidenceMap
from speech.config import Config, DataConfig, FeatureConfig, ModelConfig
from speech.errors import ModelError, SpeechError
from speech.shipped import CONFIG_FILE, model_directories
from speech.tokenizer import CharTokenizer

CONFIG = Config(
    features=FeatureConfig(mel_bands=8),
    model=ModelConfig(conv_channels=2, layers=1, hidden=8),
    data=DataConfig(train={"früh/a.jsonl": 0.5}),
)


def tiny_model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    model = create_model(CONFIG, CharTokenizer("ab c'"))
    model.extractor.fit([torch.randn(8000)])
    model.modules().eval()
    return model


def log_probs(model: Model) -> torch.Tensor:
    random = np.random.default_rng(0)
    samples = torch.from_numpy(random.standard_normal((1, 5000)).astype(np.float32))
    with torch.inference_mode():
        result, _ = model.network(*model.extractor(samples, torch.tensor([5000])))
    return result


def one_line(error: pytest.ExceptionInfo[SpeechError], *parts: str, longest: int = 400) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < longest
    for part in parts:
        assert part in message


def stored(directory: Path) -> Path:
    save_model(directory, tiny_model())
    return directory


# --- Models ---------------------------------------------------------------------------------------


def test_model_is_the_same_after_the_disk(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(tmp_path / "new" / "model", model)
    loaded = load_model(tmp_path / "new" / "model")
    assert loaded.config == CONFIG
    assert loaded.tokenizer.alphabet == model.tokenizer.alphabet
    for name, tensor in model.modules().state_dict().items():
        assert torch.equal(loaded.modules().state_dict()[name], tensor), name
    assert torch.equal(log_probs(loaded), log_probs(model))
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == sorted(
        [CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE]
    )


def test_calibration_goes_with_its_weights(tmp_path: Path) -> None:
    known = Calibration(WordTimes(-0.05, 0.02), {"none": ConfidenceMap(1.5, -0.5)})
    save_model(tmp_path, dataclasses.replace(tiny_model(0), calibration=known))
    assert load_model(tmp_path).calibration == known
    save_model(tmp_path, tiny_model(1))  # other weights, of which nothing is known
    assert load_model(tmp_path).calibration == Calibration()
    assert not (tmp_path / CALIBRATION_FILE).exists()


def test_loaded_model_is_ready_to_recognise(tmp_path: Path) -> None:
    loaded = load_model(stored(tmp_path))
    for part in (loaded.extractor, loaded.network):
        assert not any(module.training for module in part.modules())
    for name, tensor in loaded.modules().state_dict().items():
        assert tensor.dtype == torch.float32, name
        assert tensor.device.type == "cpu", name


def test_half_precision_on_disk(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(tmp_path, model, torch.float16)
    for name, tensor in safetensors.torch.load_file(tmp_path / WEIGHTS_FILE).items():
        expected = torch.float32 if name.startswith("features.") else torch.float16
        assert tensor.dtype == expected, name
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.extractor.mean, model.extractor.mean)
    assert torch.equal(loaded.extractor.deviation, model.extractor.deviation)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor.half().float()), name
    torch.testing.assert_close(log_probs(loaded), log_probs(model), rtol=0, atol=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loaded_model_keeps_no_file_mapped(tmp_path: Path) -> None:
    save_model(tmp_path, tiny_model(), torch.float16)
    loaded = load_model(tmp_path)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert loaded.extractor.mean.dtype == torch.float32


def test_names_on_disk(tmp_path: Path) -> None:
    names = safetensors.torch.load_file(stored(tmp_path) / WEIGHTS_FILE).keys()
    assert {name.split(".")[0] for name in names} == {"features", "network"}
    assert {name for name in names if name.startswith("features")} == {
        "features.mean", "features.deviation",
    }  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_model_of_a_gpu_loads_on_a_cpu(tmp_path: Path) -> None:
    model = tiny_model()
    expected = log_probs(model)
    model.modules().to("cuda")
    save_model(tmp_path, model)
    save_state(tmp_path / "last.pt", {"network": model.network.state_dict()})
    assert torch.equal(log_probs(load_model(tmp_path)), expected)
    state = load_state(tmp_path / "last.pt")["network"]
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}


def test_seconds_per_frame() -> None:
    assert tiny_model().seconds_per_frame == pytest.approx(4 * 160 / 16000)


# --- Damaged models -------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(tmp_path: Path, kept: int) -> None:
    file = stored(tmp_path) / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    one_line(error, str(file), "cannot read the weights")


@pytest.mark.parametrize("content", [b"\x80" * 64, b"version https://git-lfs.github.com/spec/v1\n"])
def test_weights_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    file = stored(tmp_path) / WEIGHTS_FILE
    file.write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    one_line(error, str(file), "cannot read the weights")


def test_weights_of_another_shape(tmp_path: Path) -> None:
    file = stored(tmp_path) / CONFIG_FILE
    file.write_text(file.read_text("utf-8").replace("hidden = 8", "hidden = 9"), "utf-8")
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    one_line(error, WEIGHTS_FILE, "do not fit config.toml", "size mismatch", "[32, ", "[36, ")


def test_missing_and_unknown_weights(tmp_path: Path) -> None:
    file = stored(tmp_path) / WEIGHTS_FILE
    weights = safetensors.torch.load_file(file)
    for changed, part in (
        ({k: v for k, v in weights.items() if k != "network.output.bias"}, "network.output.bias"),
        (weights | {"network.more": torch.zeros(1)}, "network.more"),
    ):
        safetensors.torch.save_file(changed, file)
        with pytest.raises(ModelError) as error:
            load_model(tmp_path)
        one_line(error, str(file), "do not fit config.toml", part)


def test_tokens_of_another_model(tmp_path: Path) -> None:
    file = stored(tmp_path) / TOKENS_FILE
    CharTokenizer("abc").save(file)
    with pytest.raises(ModelError) as error:
        load_model(tmp_path)
    one_line(error, "network.output", "size mismatch")


@pytest.mark.parametrize(
    ("name", "content"),
    [(TOKENS_FILE, None), (TOKENS_FILE, "a\n"), (CONFIG_FILE, "[modle]\n"), (CONFIG_FILE, "[")],
)
def test_other_files_damaged(tmp_path: Path, name: str, content: str | None) -> None:
    file = stored(tmp_path) / name
    file.unlink()
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(SpeechError) as error:
        load_model(tmp_path)
    one_line(error, str(file))


# --- Finding models -------------------------------------------------------------------------------


def test_find_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [tmp_path / "checkout", tmp_path / "wheel", tmp_path / "none"]
    for place in ("checkout/small", "wheel/small", "wheel/base", "elsewhere"):
        stored(tmp_path / place)
    monkeypatch.setattr("speech.shipped.model_directories", lambda: roots)
    assert find_model(tmp_path / "elsewhere") == tmp_path / "elsewhere"
    assert find_model("small") == tmp_path / "checkout" / "small"
    assert find_model("base") == tmp_path / "wheel" / "base"
    monkeypatch.chdir(tmp_path)
    assert find_model("elsewhere") == Path("elsewhere")
    with pytest.raises(ModelError) as error:
        find_model("large")
    one_line(error, "no model 'large'", "shipped names: base, small")


def test_half_a_model_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (stored(tmp_path / "model") / WEIGHTS_FILE).unlink()
    monkeypatch.setattr("speech.shipped.model_directories", list)
    with pytest.raises(ModelError) as error:
        load_model(tmp_path / "model")
    one_line(error, "needs a directory with config.toml and model.safetensors")


def test_an_installed_wheel_looks_at_its_own_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "speech"
    monkeypatch.setattr("speech.shipped.__file__", str(package / "shipped.py"))
    assert model_directories() == [tmp_path / "models"]
    (package / "_models").mkdir(parents=True)
    assert model_directories() == [package / "_models"]


# --- Beginning from a model -----------------------------------------------------------------------


def test_initial_model_by_path_from_the_config_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "models" / "base")
    stored(tmp_path / "runs" / "first")
    monkeypatch.setattr("speech.shipped.model_directories", lambda: [tmp_path / "models"])
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("../runs/first", str(tmp_path / "runs" / "first")):
        assert find_initial(name, configs).samefile(tmp_path / "runs" / "first")
    assert find_initial("base", configs) == tmp_path / "models" / "base"
    with pytest.raises(ModelError, match="no model 'second'"):
        find_initial("second", configs)


def test_start_from_a_model(tmp_path: Path) -> None:
    expected = log_probs(load_model(stored(tmp_path)))
    changed = dataclasses.replace(CONFIG.model, dropout=0.5)
    model = create_model(dataclasses.replace(CONFIG, model=changed), CharTokenizer("ab c'"))
    start_from(tmp_path, model)
    model.modules().eval()
    assert torch.equal(log_probs(model), expected)


def test_one_direction_starts_from_the_forward_direction_of_two(tmp_path: Path) -> None:
    both = dataclasses.replace(CONFIG.model, bidirectional=True, layers=2)
    source = create_model(dataclasses.replace(CONFIG, model=both), CharTokenizer("ab c'"))
    save_model(tmp_path, source)
    one = dataclasses.replace(both, bidirectional=False, lookahead_frames=3)
    model = create_model(dataclasses.replace(CONFIG, model=one), CharTokenizer("ab c'"))
    start_from(tmp_path, model)
    theirs, ours = source.network.state_dict(), model.network.state_dict()
    hidden = both.hidden
    for key in ("subsampler.convolutions.0.weight", "layers.0.forwards.weight_ih_l0",
                "layers.1.forwards.weight_hh_l0", "output.bias"):  # fmt: skip
        assert torch.equal(ours[key], theirs[key])
    for key in ("layers.1.norm.weight", "layers.1.forwards.weight_ih_l0", "output.weight"):
        assert torch.equal(ours[key], theirs[key][..., :hidden])
    assert torch.equal(ours["lookahead.weight"][:, 0], torch.eye(4)[0])


def test_two_directions_do_not_start_from_one(tmp_path: Path) -> None:
    one = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, bidirectional=False))
    save_model(tmp_path, create_model(one, CharTokenizer("ab c'")))
    with pytest.raises(ModelError, match="bidirectional = False, not True"):
        start_from(tmp_path, tiny_model())


@pytest.mark.parametrize(
    ("config", "alphabet", "part"),
    [
        (dataclasses.replace(CONFIG, model=ModelConfig(layers=2)), "ab c'", "its [model] has"),
        (dataclasses.replace(CONFIG, features=FeatureConfig()), "ab c'", "its [features] has"),
        (CONFIG, "ab cd", "its alphabet is"),
    ],
)
def test_start_from_another_kind_of_model(
    tmp_path: Path, config: Config, alphabet: str, part: str
) -> None:
    with pytest.raises(ModelError) as error:
        start_from(stored(tmp_path), create_model(config, CharTokenizer(alphabet)))
    one_line(error, "cannot start from", part, longest=900)


# --- Training states ------------------------------------------------------------------------------

STATE = {
    "network": {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3).bfloat16()},
    "progress": {"epoch": 3, "best": 0.5, "history": [{"loss": 1.5}], "name": "x", "none": None},
    "random": [[torch.get_rng_state()]],
}


def test_state_is_the_same_after_the_disk(tmp_path: Path) -> None:
    save_state(tmp_path / "last.pt", STATE)
    state = load_state(tmp_path / "last.pt")
    assert state["progress"] == STATE["progress"]
    assert torch.equal(state["network"]["weight"], STATE["network"]["weight"])
    assert state["network"]["half"].dtype == torch.bfloat16
    assert torch.equal(state["random"][0][0], STATE["random"][0][0])
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_no_state(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        load_state(tmp_path / "last.pt")
    one_line(error, f"{tmp_path / 'last.pt'}: no training state to resume from")


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_damage_is_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut short, or bytes changed: readable still (padding was hit), or a `ModelError`."""
    file = tmp_path_factory.mktemp("state") / "last.pt"
    save_state(file, STATE)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
        harmless = False
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        harmless = True
    file.write_bytes(content)
    message = ""
    try:
        load_state(file)
    except ModelError as error:
        message = str(error)
    assert harmless or message
    assert not message or message.startswith(f"{file}: ")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x80\x02", b"PK\x03\x04"])
def test_other_files_are_no_state(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "last.pt"
    file.write_bytes(content)
    with pytest.raises(ModelError) as error:
        load_state(file)
    one_line(error, str(file), "damaged")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['SPEECH_TEST_EVIL']}",)


def test_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "executed"
    monkeypatch.setenv("SPEECH_TEST_EVIL", str(trace))
    zipped, plain = tmp_path / "zipped.pt", tmp_path / "plain.pt"
    torch.save({"version": 1, "network": Evil()}, zipped)
    plain.write_bytes(pickle.dumps({"version": 1, "network": Evil()}, protocol=2))
    for file in (zipped, plain):
        with pytest.raises(ModelError) as error:
            load_state(file)
        one_line(error, str(file))
    assert not trace.exists()
    torch.load(zipped, weights_only=False)  # the trap does snap
    assert trace.exists()


@pytest.mark.parametrize("content", [{"version": 2}, {"epoch": 3}, [1, 2], torch.zeros(2)])
def test_another_version_or_kind(tmp_path: Path, content: object) -> None:
    file = tmp_path / "last.pt"
    torch.save(content, file)
    with pytest.raises(ModelError) as error:
        load_state(file)
    one_line(error, f"{file}: not a training state of version 1")


# --- Whole or not at all --------------------------------------------------------------------------


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    file.write_text("old")

    def write(path: Path) -> None:
        path.write_text("half of the n")
        assert file.read_text() == "old"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(file, write)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    replace_file(file, lambda path: path.write_text("new"))
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_what_a_killed_write_left_does_not_pile_up(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def killed(path: Path) -> None:
        path.write_text("half")
        (tmp_path / "kept").write_bytes(path.read_bytes())
        path.rename(tmp_path / path.name)  # where a kill would have left it
        raise Killed

    with pytest.raises(Killed):
        replace_file(tmp_path / "last.pt", killed)
    for content in ("1", "2"):
        replace_file(tmp_path / "last.pt", lambda path, text=content: path.write_text(text))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "last.pt"]


def test_interrupted_save_keeps_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, tiny_model(0))
    expected = log_probs(load_model(tmp_path))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            save_model(tmp_path, tiny_model(1))
    assert torch.equal(log_probs(load_model(tmp_path)), expected)
    assert len(list(tmp_path.iterdir())) == 3


# --- Averages -------------------------------------------------------------------------------------


def test_average_by_pencil() -> None:
    average, current = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 0.0])]
    average_weights(average, current, 0.75)
    assert average[0].tolist() == [1.5, 1.5]
    average_weights(average, current, 0.0)
    assert average[0].tolist() == [3.0, 0.0]


def test_loading_draws_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthogonal weights that a file overwrites took more time than all else of the model."""
    save_model(tmp_path, tiny_model())
    monkeypatch.setattr(torch.nn.init, "orthogonal_", None)
    before = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
