"""Errors that a user can act on: one line that says what was got, what was needed, and where."""

from __future__ import annotations


def reason_of(error: Exception) -> str:
    """Why it failed, in words of its own: without the number and the path that an OSError adds."""
    return str(getattr(error, "strerror", None) or error).lower()


class SpeechError(Exception):
    """Root of all errors this package raises on purpose; the command line prints it as one line."""


def line_of(error: SpeechError | OSError) -> str:
    """What a command says of it: an OSError may be a full disk, or a place without permission."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


class AudioError(SpeechError):
    """A file, stream or byte string could not become samples."""


class AudioFormatError(AudioError):
    """What was read is no audio in any format that a reader knows."""


class ManifestError(SpeechError):
    """A manifest or corpus directory is not what its format promises."""


class DownloadError(SpeechError):
    """No server gave a file whole, or what stands in its place is not the published one."""


class ArchiveError(SpeechError):
    """An archive is damaged, or holds what may not be unpacked."""


class ConfigError(SpeechError):
    """A configuration holds an unknown key, lacks one, or holds a value out of range."""


class TextError(SpeechError):
    """A text holds characters outside the alphabet, or cannot be normalised."""


class ModelError(SpeechError):
    """A model directory or checkpoint is missing, damaged, or of another version."""


class LanguageModelError(SpeechError):
    """A language model file or its training text is missing, damaged, or not what it says."""


class TrainingError(SpeechError):
    """Training cannot go on: bad data, losses that stay non-finite, a run directory in the way."""


class DivergedError(TrainingError):
    """Losses or gradients stayed non-finite."""


class WorkerLostError(TrainingError):
    """Another of the processes that train together is gone, or does not answer."""
