"""A model as one ONNX graph: samples and their lengths in, log-probs and their lengths out.

Built node by node from the weights, in the operators of ONNX's standard set, so that it is the same
whatever exporter a version of torch has, and an LSTM is ONNX's own LSTM. Lengths go in with the
samples: an utterance alone or in any padded batch gives the same log-probs, as in `speech.model`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from speech.checkpoint import Model
from speech.features import FeatureExtractor
from speech.layers import FeedForwardLayer, Lookahead, RecurrentLayer
from speech.model import AcousticModel

INPUTS, OUTPUTS = ("samples", "lengths"), ("log_probs", "log_prob_lengths")
MEL_NODE = "mel_power"  # which no quantisation should touch
# Operators of 2022, which every runtime in use has: LayerNormalization came with them.
OPSET, IR_VERSION = 17, 8
# ONNX's order of the gates within a recurrent layer's weights, as places in PyTorch's.
_GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


class _Graph:
    """Nodes and weights as they are added; each value goes by its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its first output, which is the node's."""
        name = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def constant(self, value: NDArray[Any] | Tensor | float | np.int64 | list[int]) -> str:
        """Return the name of a constant; a float becomes float32, whole numbers int64."""
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if not isinstance(value, np.ndarray):
            value = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def build_graph(model: Model, metadata: dict[str, str]) -> Any:
    """Return the ``onnx.ModelProto`` of a model; `metadata` is stored in it.

    Inputs: ``samples`` (B, S) float32 at the model's rate, ``lengths`` (B,) int64, how many of each
    row are the utterance's own. Outputs: ``log_probs`` (B, T', V) float32, normalised, and
    ``log_prob_lengths`` (B,) int64. Frames beyond an utterance's length hold no meaning.
    """
    graph = _Graph()
    log_mel, lengths = _features(graph, model.extractor, *INPUTS)
    log_probs, lengths = _network(graph, model.network, log_mel, lengths)
    graph.add("Identity", log_probs, name=OUTPUTS[0])
    graph.add("Identity", lengths, name=OUTPUTS[1])
    vocabulary = model.tokenizer.size
    built = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "acoustic_model",
            [
                helper.make_tensor_value_info(INPUTS[0], TensorProto.FLOAT, ["B", "S"]),
                helper.make_tensor_value_info(INPUTS[1], TensorProto.INT64, ["B"]),
            ],
            [
                helper.make_tensor_value_info(
                    OUTPUTS[0], TensorProto.FLOAT, ["B", "T", vocabulary]
                ),
                helper.make_tensor_value_info(OUTPUTS[1], TensorProto.INT64, ["B"]),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="speech",
    )
    helper.set_model_props(built, metadata)
    onnx.checker.check_model(built, full_check=True)
    return built


# --- Features: speech.features --------------------------------------------------------------------


def _features(
    graph: _Graph, extractor: FeatureExtractor, samples: str, lengths: str
) -> tuple[str, str]:
    """Add `FeatureExtractor.forward`: ``log_mel`` (B, T, M) and its lengths (B,)."""
    config = extractor.config
    size = _size(graph, samples, 1)
    own = _masked(graph, samples, lengths, 1, [])
    frames = _num_frames(graph, size, config.n_fft, config.hop_samples)
    first = (config.n_fft - config.window_samples) // 2  # the window stands in the frame's middle
    starts_end = graph.add("Mul", frames, graph.constant([config.hop_samples]))
    beyond = graph.constant([first + config.window_samples - config.hop_samples])
    missing = graph.add("Sub", graph.add("Add", starts_end, beyond), size)  # may be below 0
    pads = graph.add("Concat", graph.constant([0, -first, 0]), missing, axis=0)
    power = _power(graph, graph.add("Pad", own, pads), extractor)
    log_mel = graph.add("Log", graph.add("Max", power, graph.constant(config.log_floor)))
    centred = graph.add("Sub", log_mel, _moving_mean(graph, extractor, log_mel, frames))
    normalised = graph.add("Div", centred, graph.constant(extractor.deviation))
    return normalised, _num_frames(graph, lengths, config.n_fft, config.hop_samples)


def _num_frames(graph: _Graph, samples: str, n_fft: int, hop: int) -> str:
    """Add `speech.features.num_frames`."""
    beyond = graph.add("Sub", samples, graph.constant([n_fft]))
    more = graph.add("Max", beyond, graph.constant([0]))
    return graph.add("Add", _ceil_div(graph, more, hop), graph.constant([1]))


def _power(graph: _Graph, samples: str, extractor: FeatureExtractor) -> str:
    """Add the mel power (B, T, M) of samples (B, S) from the first window's first to the last's.

    The Fourier transform is a convolution with windowed cosines and sines, of the frequencies that
    a mel band takes in: quicker here than the operator STFT, which few runtimes have besides.
    """
    config = extractor.config
    mel = extractor.mel_weights
    used = mel.abs().sum(1).nonzero().squeeze(1)
    cosines, sines = _fourier_kernels(extractor, used.numpy())
    signal = graph.add("Unsqueeze", samples, graph.constant([1]))
    kernels = graph.constant(np.concatenate([cosines, sines])[:, None])
    spectrum = graph.add("Conv", signal, kernels, strides=[config.hop_samples])  # (B, 2 bins, T)
    square = graph.add("Mul", spectrum, spectrum)
    weights = graph.constant(torch.cat([mel[used], mel[used]]))
    return graph.add(
        "MatMul", graph.add("Transpose", square, perm=[0, 2, 1]), weights, name=MEL_NODE
    )


def _fourier_kernels(
    extractor: FeatureExtractor, bins: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the windowed cosines and sines (bins, window_samples)."""
    first = (extractor.config.n_fft - extractor.config.window_samples) // 2
    window = extractor.window[first : first + extractor.config.window_samples].double().numpy()
    times = np.arange(len(window))
    angles = 2 * np.pi * np.outer(bins, times) / extractor.config.n_fft
    return tuple((f(angles) * window).astype(np.float32) for f in (np.cos, np.sin))


def _moving_mean(graph: _Graph, extractor: FeatureExtractor, log_mel: str, frames: str) -> str:
    """Add the causal moving mean (B, T, M), in double precision as the library computes it."""
    window = extractor.config.mean_window_frames
    exact = graph.add("Cast", log_mel, to=TensorProto.DOUBLE)
    total = graph.add("CumSum", exact, graph.constant(np.int64(1)))
    later = graph.add("Pad", total, graph.constant([0, window, 0, 0, 0, 0]))
    zero, axis = graph.constant([0]), graph.constant([1])
    before = graph.add("Slice", later, zero, frames, axis)  # zeros, then the total of long ago
    inside = graph.add("Sub", total, before)
    count = graph.add("Add", _range(graph, frames), graph.constant([1]))
    seen = graph.add("Min", count, graph.constant([window]))
    left = graph.add("Sub", graph.constant([window]), seen)
    prior = graph.add("Min", left, graph.constant([extractor.config.mean_prior_frames]))
    column = graph.constant([1])
    weight = graph.add("Unsqueeze", graph.add("Cast", prior, to=TensorProto.DOUBLE), column)
    divisor = graph.add("Cast", graph.add("Add", seen, prior), to=TensorProto.DOUBLE)
    begun = graph.add("Mul", weight, graph.constant(extractor.mean.double()))
    mean = graph.add(
        "Div", graph.add("Add", inside, begun), graph.add("Unsqueeze", divisor, column)
    )
    return graph.add("Cast", mean, to=TensorProto.FLOAT)


# --- Network: speech.model, speech.layers ---------------------------------------------------------


def _network(graph: _Graph, network: AcousticModel, log_mel: str, lengths: str) -> tuple[str, str]:
    """Add `AcousticModel.forward`; between the layers values are (T', B, width), as ONNX's LSTM."""
    x, lengths = _subsampler(graph, network, log_mel, lengths)
    for layer in network.layers:
        if isinstance(layer, RecurrentLayer):
            x = _recurrent_layer(graph, layer, x, lengths)
        else:
            assert isinstance(layer, FeedForwardLayer)
            x = _feedforward_layer(graph, layer, x, lengths)
    if network.lookahead is not None:
        x = _lookahead(graph, network.lookahead, x, lengths)
    logits = _linear(graph, network.output, _norm(graph, network.norm, x))
    log_probs = graph.add("LogSoftmax", logits, axis=-1)
    return graph.add("Transpose", log_probs, perm=[1, 0, 2]), lengths


def _subsampler(
    graph: _Graph, network: AcousticModel, log_mel: str, lengths: str
) -> tuple[str, str]:
    x = graph.add("Unsqueeze", log_mel, graph.constant([1]))  # (B, 1, T, M)
    subsampler = network.subsampler
    for stride, convolution in zip(subsampler.strides, subsampler.convolutions, strict=True):
        assert isinstance(convolution, nn.Conv2d)
        weight, bias = convolution.get_parameter("weight"), convolution.get_parameter("bias")
        x = graph.add(
            "Conv", _masked(graph, x, lengths, 2, [1, 3]),
            graph.constant(weight), graph.constant(bias),
            strides=list(convolution.stride), pads=list(convolution.padding) * 2,
        )  # fmt: skip
        x = graph.add("Relu", x)
        lengths = _ceil_div(graph, lengths, stride)
    x = graph.add("Transpose", x, perm=[2, 0, 1, 3])  # (B, C, T', bands) -> (T', B, C, bands)
    return graph.add("Reshape", x, graph.constant([0, 0, -1])), lengths


def _recurrent_layer(graph: _Graph, layer: RecurrentLayer, x: str, lengths: str) -> str:
    """Both directions as one node, which reads each utterance back from its own last frame."""
    cells = [layer.forwards] + ([layer.backwards] if layer.backwards is not None else [])
    operator = type(cells[0]).__name__
    order = _GATE_ORDER[operator]

    def stack(*names: str) -> str:
        found = [torch.cat([_gates(c.get_parameter(n), order) for n in names]) for c in cells]
        return graph.constant(torch.stack(found))

    attributes: dict[str, Any] = {"hidden_size": layer.forwards.hidden_size}
    if len(cells) == 2:
        attributes["direction"] = "bidirectional"
    if operator == "GRU":
        attributes["linear_before_reset"] = 1  # as PyTorch's
    if isinstance(layer.forwards, nn.RNN):
        attributes["activations"] = [layer.forwards.nonlinearity.title()] * len(cells)
    y = graph.add(
        operator, _norm(graph, layer.norm, x), stack("weight_ih_l0"), stack("weight_hh_l0"),
        stack("bias_ih_l0", "bias_hh_l0"), graph.add("Cast", lengths, to=TensorProto.INT32),
        **attributes,
    )  # fmt: skip
    y = graph.add("Transpose", y, perm=[0, 2, 1, 3])  # (T', directions, B, H) -> (T', B, ...)
    return _projection(graph, layer, graph.add("Reshape", y, graph.constant([0, 0, -1])))


def _gates(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return weights (G H, ...) with the gates in ONNX's order."""
    gates = weight.detach().chunk(len(order))
    return torch.cat([gates[place] for place in order])


def _feedforward_layer(graph: _Graph, layer: FeedForwardLayer, x: str, lengths: str) -> str:
    weight, bias = layer.linear.get_parameter("weight"), layer.linear.get_parameter("bias")
    before, after = layer.window
    x = _norm(graph, layer.norm, x)
    y = _over_time(graph, x, lengths, [before, after], 1, weight, bias)
    return _projection(graph, layer, graph.add("Relu", y))


def _lookahead(graph: _Graph, lookahead: Lookahead, x: str, lengths: str) -> str:
    weight = lookahead.weight.T[:, None]  # (1 + frames, H) -> (H, 1, 1 + frames)
    return _over_time(graph, x, lengths, [0, lookahead.frames], len(weight), weight)


def _over_time(
    graph: _Graph, x: str, lengths: str, window: list[int], groups: int, *weights: Tensor
) -> str:
    """Add a convolution over time of (T', B, width); it sees zeros beyond an utterance's end."""
    x = _masked(graph, graph.add("Transpose", x, perm=[1, 2, 0]), lengths, 2, [1])
    parameters = [graph.constant(weight) for weight in weights]
    y = graph.add("Conv", x, *parameters, pads=window, group=groups)
    return graph.add("Transpose", y, perm=[2, 0, 1])  # (B, width, T') -> (T', B, width)


def _projection(graph: _Graph, layer: RecurrentLayer | FeedForwardLayer, x: str) -> str:
    return _linear(graph, layer.projection, x) if isinstance(layer.projection, nn.Linear) else x


def _linear(graph: _Graph, linear: nn.Linear, x: str) -> str:
    product = graph.add("MatMul", x, graph.constant(linear.weight.T))
    return graph.add("Add", product, graph.constant(linear.bias))


def _norm(graph: _Graph, norm: nn.Module, x: str) -> str:
    if not isinstance(norm, nn.LayerNorm):
        return x
    return graph.add(
        "LayerNormalization", x, graph.constant(norm.weight), graph.constant(norm.bias),
        epsilon=norm.eps,
    )  # fmt: skip


# --- Sizes and lengths ----------------------------------------------------------------------------


def _size(graph: _Graph, x: str, axis: int) -> str:
    """Add the size (1,) of `x` along an axis."""
    return graph.add("Gather", graph.add("Shape", x), graph.constant([axis]))


def _range(graph: _Graph, size: str) -> str:
    """Add 0, 1, ... below a size (1,)."""
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    return graph.add("Range", zero, graph.add("Squeeze", size), one)


def _own(graph: _Graph, lengths: str, size: str) -> str:
    """Add `speech.layers.frame_mask`: (B, size), true below the lengths (B,)."""
    column = graph.add("Unsqueeze", lengths, graph.constant([1]))
    return graph.add("Less", _range(graph, size), column)


def _masked(graph: _Graph, x: str, lengths: str, time_axis: int, other_axes: list[int]) -> str:
    """Add `x` with zeros beyond the lengths; its axes are the batch, time and the others."""
    own = _own(graph, lengths, _size(graph, x, time_axis))
    if other_axes:
        own = graph.add("Unsqueeze", own, graph.constant(other_axes))
    return graph.add("Where", own, x, graph.constant(0.0))


def _ceil_div(graph: _Graph, value: str, divisor: int) -> str:
    return graph.add(
        "Div", graph.add("Add", value, graph.constant([divisor - 1])), graph.constant([divisor])
    )
