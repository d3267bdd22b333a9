"""A speech recogniser: audio to log-mel, log-mel to characters by a stacked LSTM trained with CTC.

The modules are the pipeline: ``audio`` -> ``features`` -> ``model`` -> ``decode`` ->
``transcript``, with ``metrics`` to judge and ``train`` to learn. Importing the package imports none
of them, so that ``import speech`` stays free of torch; import what you need
(``from speech.transcribe import Recogniser``).

Shapes in docstrings use one legend throughout:

    B  utterances in a batch        S  samples of audio
    T  log-mel frames               T' output frames after subsampling
    M  mel bands                    H  units of a layer
    V  vocabulary with the blank    L  tokens of a transcript

Everything is batch-first. Lengths are int64 counts, never fractions.
"""

__version__ = "0.1.0"
