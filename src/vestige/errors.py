"""Typed errors. Each names what was found, what was expected and what to do next."""

from __future__ import annotations


class VestigeError(Exception):
    """Base of every error that vestige raises for a user to read.

    Parameters
    ----------
    found : what was met, naming the input (a path, a row, a tensor, an option).
    expected : what was needed instead.
    remedy : the next thing to type or to change.
    """

    exit_code = 2

    def __init__(self, found: str, *, expected: str, remedy: str) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        super().__init__(f"{found} Expected: {expected} Remedy: {remedy}")


class InvalidInput(VestigeError):
    """An option, array or file does not have the required form."""


class NotFound(VestigeError):
    """A path, row or name does not exist."""


class AlreadyExists(VestigeError):
    """Writing would replace something that the user made."""


class CorruptFile(VestigeError):
    """A file exists but cannot be read as what it claims to be."""


class ShapeMismatch(VestigeError):
    """Image size or channel count of data and model differ."""


class EmptySet(VestigeError):
    """A set of rows that must hold something is empty."""


class BadWeights(VestigeError):
    """Weights hold NaN or infinity, or do not fit the architecture."""


class NeedsAccess(VestigeError):
    """A method needs to see more of the model than was granted."""


class MissingExtra(VestigeError):
    """An optional package is not installed."""


class BrokenDependency(VestigeError):
    """An installed package cannot be imported."""


class DigestMismatch(VestigeError):
    """Two things that must be the same bytes are not."""


class Unsupported(VestigeError):
    """The request is well formed but outside what vestige can do."""


class NothingChanged(VestigeError):
    """An erasure moved no weight."""


class StorageFailed(VestigeError):
    """Writing to disk failed; nothing half-written was kept."""
