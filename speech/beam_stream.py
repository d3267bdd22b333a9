"""Beam search of a stream in constant memory: what all prefixes agree on is committed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from speech.alignment import with_alignment
from speech.beam import Beam, Labelling
from speech.decode import Hypothesis

MOST_UNCOMMITTED_FRAMES = 1024  # then what the best prefix holds is committed, agreed on or not


class BeamStream:
    """A search that is told its frames chunk by chunk; frames are counted from the beginning.

    Its text is that of the whole, however it is cut: all that `push` returned, one after the other,
    and then what `finish` returns.
    """

    def __init__(self, beam: Beam, check: Callable[[NDArray[np.float32]], None]) -> None:
        """Begin with an empty beam; `check` raises where a chunk cannot be heard."""
        self._beam, self._check = beam, check
        beam.begin()
        self._frames = np.empty((0, 0), np.float32)  # those whose tokens are not all committed
        self._first = 0  # number of the first of them

    def push(self, log_probs: NDArray[np.float32]) -> Hypothesis:
        """Hear the next frames (any number, V); return the tokens that are now certain.

        Nothing that is still to come will change them. SpeechError as for `BeamDecoder.decode`.
        """
        if not len(log_probs):
            return Hypothesis((), (), (), (), 0.0, 0.0)
        self._check(log_probs)
        self._beam.hear(log_probs)
        kept = [self._frames, log_probs] if len(self._frames) else [log_probs]
        self._frames = np.concatenate(kept)
        return self._commit()

    def partial(self) -> Hypothesis:
        """The best text as if the stream ended here, without what is certain already."""
        return self._align(self._beam.results(1)[0])

    def finish(self) -> Hypothesis:
        """The rest of the text. Its score and log-probability are those of the whole."""
        return self.partial()

    @property
    def memory_bytes(self) -> int:
        """What the stream keeps."""
        return self._beam.memory_bytes + self._frames.nbytes

    def _commit(self) -> Hypothesis:
        by_force = len(self._frames) > MOST_UNCOMMITTED_FRAMES
        best = self._beam.best()
        tokens = self._beam.agree(by_force)
        # The best prefix begins with these tokens: where it has them is where they are.
        aligned = self._align(best)
        count = len(tokens)
        ends = aligned.end_frames[:count]
        # No prefix may lack the frames for its other tokens.
        most = self._first + len(self._frames) - self._beam.frames_needed()
        if by_force or not best.tokens[count:]:
            self._drop(most)
        elif count:
            self._drop(min(ends[-1], most))
        return Hypothesis(tokens, aligned.frames[:count], ends, aligned.confidences[:count],
                          aligned.log_probability, best.score)  # fmt: skip

    def _drop(self, up_to: int) -> None:
        self._frames = self._frames[max(0, up_to - self._first) :].copy()
        self._first = max(self._first, up_to)

    def _align(self, found: Labelling) -> Hypothesis:
        empty = Hypothesis(found.tokens, (), (), (), found.log_probability, found.score)
        if not found.tokens:
            return empty
        aligned = with_alignment(empty, self._frames)
        return Hypothesis(
            found.tokens,
            tuple(self._first + frame for frame in aligned.frames),
            tuple(self._first + frame for frame in aligned.end_frames),
            aligned.confidences,
            found.log_probability,
            found.score,
        )
