"""Every error a user can cause or meet, under one root."""

from __future__ import annotations

from pathlib import Path


class TuneAheadError(Exception):
    """Root of all errors raised on purpose. The command line prints it and exits with code 2.

    The message says what was wrong and the value seen; ``remedy`` says the next thing to do.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message


class DataError(TuneAheadError):
    """A data set can't be read or used. ``path`` and ``row`` (1-based line or record) say where."""

    def __init__(
        self, message: str, *, path: str | Path | None = None, row: int | None = None, remedy: str = ""
    ) -> None:
        where = "" if path is None else f"{path}" + ("" if row is None else f", row {row}") + ": "
        super().__init__(where + message, remedy=remedy)
        self.path = path
        self.row = row


class RecipeError(TuneAheadError):
    """A recipe holds an unknown field or a value outside what can be trained."""


class ModelError(TuneAheadError):
    """A base model or tokenizer can't be loaded or can't be fine-tuned."""


class MemoryShortError(ModelError):
    """Runs need more memory than the device has."""


class BenchmarkError(TuneAheadError):
    """A benchmark is unknown, malformed or does not fit the model."""


class TraceError(TuneAheadError):
    """A probe trace is missing, unreadable or of another schema."""


class PredictorError(TuneAheadError):
    """A predictor can't be fitted, loaded or applied to these features."""


class StoreError(TuneAheadError):
    """The history of runs can't be opened, read or written."""


class UnreadableRunError(StoreError):
    """One run of a store, ``run_id``, can't be read; the others can."""

    def __init__(self, message: str, *, run_id: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.run_id = run_id


class BuildError(TuneAheadError):
    """Runs can't be made where they were to be made."""


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Why a text file can't be read, without numbers and paths."""
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 text"
