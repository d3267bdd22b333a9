"""A neural language model: a stacked LSTM that predicts the next character of a text.

Characters are the recogniser's tokens 1 to V-1; token 0, the blank there, is the end of a sentence
here, and what stands before its first character. The probability of a text is the product of what
the network gives each next character and the end (Sutskever et al., 2011; Graves, 2013, section 2).
Like the recogniser this is one network unrolled over time; there many frames become many tokens,
here one seed becomes a text (`generate`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from speech.batching import pack
from speech.char_config import CharConfig, NetworkConfig
from speech.checkpoint import TOKENS_FILE, read_weights, replace_file, write_weights
from speech.config import dump_config, load_config_of
from speech.errors import SpeechError
from speech.layers import State, layer_norm, linear_output, stack_layers
from speech.shipped import CHAR_WEIGHTS_FILE, CONFIG_FILE, find_shipped
from speech.tokenizer import CharTokenizer

END = 0  # token of the end of a sentence, also what precedes its first character
PADDING = -100  # target that no loss is counted for
_SCORED_CHARACTERS = 1 << 15  # in one pass of the network, padding included


class CharNetwork(nn.Module):
    """Embedding, one-way LSTM layers, linear layer, log-softmax; initialised as `AcousticModel`."""

    def __init__(self, config: NetworkConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, config.embedding)
        self.layers, width = stack_layers(config.embedding, config.layers, config)
        self.norm = layer_norm(width, config)
        self.output = linear_output(width, vocabulary_size)

    def forward(
        self, tokens: Tensor, states: Sequence[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """Return log-probs (B, L, V) float32 of what follows each token, and the layers' states.

        `tokens` is (B, L) int64; `states` are those after what came before, None at a beginning.
        """
        x = self.embedding(tokens)
        after: list[State] = []
        for number, layer in enumerate(self.layers):
            x, state = layer.carry_on(x, states[number] if states else None)  # type: ignore[operator]
            after.append(state)
        return self.output(self.norm(x)).float().log_softmax(-1), after


def char_losses(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Return (B,) in nats: -log p of each row's targets (B, L), where they are not PADDING."""
    losses = nn.functional.nll_loss(
        log_probs.transpose(1, 2),  # (B, L, V) -> (B, V, L), as PyTorch's loss takes it
        targets, ignore_index=PADDING, reduction="none",
    )  # fmt: skip
    return losses.sum(1)


def shifted(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (B, L + 1) of texts' tokens: what follows what, the end too.

    A text abc is read as END a b c and should say a b c END.
    """
    longest = max(len(row) for row in rows)
    inputs = torch.full((len(rows), longest + 1), END)
    targets = torch.full((len(rows), longest + 1), PADDING)
    for number, row in enumerate(rows):
        inputs[number, 1 : len(row) + 1] = row
        targets[number, : len(row)] = row
        targets[number, len(row)] = END
    return inputs, targets


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts texts: the log probability of all, and how much there was of it."""

    log_prob: float  # natural
    characters: int  # with one end a sentence
    words: int
    sentences: int

    @property
    def nats_per_character(self) -> float:
        """The mean of -log p of the next character, ends of sentences included."""
        return -self.log_prob / self.characters if self.characters else math.nan

    @property
    def bits_per_character(self) -> float:
        """The same to base 2."""
        return self.nats_per_character / math.log(2)

    @property
    def perplexity_per_character(self) -> float:
        """exp of the same."""
        return math.exp(self.nats_per_character)

    @property
    def perplexity_per_word(self) -> float:
        """exp(-log p / n) over words and ends of sentences, as n-gram models count it."""
        count = self.words + self.sentences
        return math.exp(-self.log_prob / count) if count else math.nan

    def to_dict(self) -> dict[str, float]:
        """All counts and figures, for JSON."""
        return {
            "perplexity_per_character": self.perplexity_per_character,
            "bits_per_character": self.bits_per_character,
            "perplexity_per_word": self.perplexity_per_word,
            **dataclasses.asdict(self),
        }


class CharState(NamedTuple):
    """Where a text stands: log-probs (V,) of what comes next, and the network's memory."""

    log_probs: Tensor
    layers: list[State]


@dataclass(frozen=True)
class CharLanguageModel:
    """A network with the alphabet it was trained on and the settings it came from."""

    config: CharConfig
    tokenizer: CharTokenizer
    network: CharNetwork

    @classmethod
    def create(cls, config: CharConfig, tokenizer: CharTokenizer) -> CharLanguageModel:
        """Return a model with initial weights, drawn from torch's global generator."""
        return cls(config, tokenizer, CharNetwork(config.network, tokenizer.size))

    @classmethod
    def load(cls, name_or_path: str | Path) -> CharLanguageModel:
        """Return a model in evaluation mode with float32 weights on the CPU."""
        directory = find_char_model(name_or_path)
        config = load_config_of(CharConfig, directory / CONFIG_FILE)
        model = cls.create(config, CharTokenizer.load(directory / TOKENS_FILE))
        read_weights(directory / CHAR_WEIGHTS_FILE, model.network)
        return model

    def save(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a model directory with weights as `dtype`."""
        directory.mkdir(parents=True, exist_ok=True)
        text = dump_config(self.config)
        replace_file(directory / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))
        replace_file(directory / TOKENS_FILE, self.tokenizer.save)
        weights = {key: value.to(dtype) for key, value in self.network.state_dict().items()}
        write_weights(directory / CHAR_WEIGHTS_FILE, weights)

    def log_probs(self, texts: Sequence[str]) -> list[float]:
        """Return log p (natural) of each normalised text with its end, computed in padded batches.

        A text's result does not depend on the others, up to rounding. TextError for a character
        outside the alphabet.
        """
        rows = [torch.tensor(self.tokenizer.encode(text), dtype=torch.int64) for text in texts]
        results = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        lengths = [len(row) + 1 for row in rows]
        with torch.inference_mode():
            for batch in pack(lengths, order, _SCORED_CHARACTERS):
                inputs, targets = shifted([rows[index] for index in batch])
                losses = char_losses(self.network(inputs)[0], targets)
                for index, loss in zip(batch, losses.tolist(), strict=True):
                    results[index] = -loss
        return results

    def measure(self, texts: Sequence[str]) -> TextScore:
        """Return how well normalised texts are predicted."""
        log_prob = math.fsum(self.log_probs(texts))
        characters = sum(len(text) + 1 for text in texts)
        words = sum(len(text.split()) for text in texts)
        return TextScore(log_prob, characters, words, len(texts))

    def begin(self) -> CharState:
        """Return the state before a text's first character."""
        return self._read([END], None)

    def advance(self, state: CharState, text: str) -> tuple[float, CharState]:
        """Return log p (natural) of characters that follow `state`, and the state after them."""
        log_prob = 0.0
        for token in self.tokenizer.encode(text):
            log_prob += float(state.log_probs[token])
            state = self._read([token], state.layers)
        return log_prob, state

    def end_log_prob(self, state: CharState) -> float:
        """Return log p (natural) of the text's end in `state`."""
        return float(state.log_probs[END])

    def _read(self, tokens: Sequence[int], layers: list[State] | None) -> CharState:
        with torch.inference_mode():
            log_probs, after = self.network(torch.tensor([tokens]), layers)
        return CharState(log_probs[0, -1], after)

    def generate(
        self, seed_text: str = "", temperature: float = 1.0, seed: int = 0
    ) -> Iterator[str]:
        """Yield characters without end that go on from a normalised `seed_text`.

        A newline is yielded where a sentence ends; the next begins without memory. Each character
        is drawn from p ** (1 / `temperature`), normalised; at temperature 0 it is the most probable
        one. The same arguments yield the same text. SpeechError for a negative temperature.
        """
        if not 0 <= temperature < math.inf:
            raise SpeechError(f"temperature must be at least 0 and finite, got {temperature}")
        random = torch.Generator().manual_seed(seed)
        return self._generate(self.advance(self.begin(), seed_text)[1], temperature, random)

    def _generate(
        self, state: CharState, temperature: float, random: torch.Generator
    ) -> Iterator[str]:
        while True:
            token = _draw(state.log_probs, temperature, random)
            if token == END:
                yield "\n"
                state = self.begin()
            else:
                yield self.tokenizer.decode([token])
                state = self._read([token], state.layers)


def _draw(log_probs: Tensor, temperature: float, random: torch.Generator) -> int:
    if temperature == 0:
        return int(log_probs.argmax())
    # Relative to the best: a low temperature must not take all probabilities to zero.
    weights = ((log_probs.double() - log_probs.max()) / temperature).exp()
    return int(torch.multinomial(weights, 1, generator=random))


def find_char_model(name_or_path: str | Path) -> Path:
    """Return the directory of a shipped model's name, or of a path to one.

    Raises `ModelError` that says how to make one, and lists the names there are.
    """
    kind, needed = "neural language model", "a directory that 'speech lm train --neural' made,"
    return find_shipped(name_or_path, kind, CONFIG_FILE, CHAR_WEIGHTS_FILE, needed=needed)
