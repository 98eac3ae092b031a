"""Progress of long work, reported to whoever listens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager


class Progress(ABC):
    """Receives the advance of named tasks."""

    @abstractmethod
    def start(self, label: str, total: int) -> int:
        """Begin a task of ``total`` units; returns its handle."""

    @abstractmethod
    def advance(self, task: int, amount: int, note: str) -> None:
        """``amount`` more units are done; ``note`` replaces the text beside the bar."""

    @abstractmethod
    def finish(self, task: int) -> None:
        """The task is over, done or not."""

    @contextmanager
    def task(self, label: str, total: int) -> Generator[Task]:
        """A task for the length of a ``with`` block."""
        handle = self.start(label, total)
        try:
            yield Task(self, handle)
        finally:
            self.finish(handle)


class Task:
    """Handle of one running task."""

    def __init__(self, progress: Progress, handle: int) -> None:
        self._progress, self._handle = progress, handle

    def advance(self, amount: int = 1, note: str = "") -> None:
        """``amount`` more units are done."""
        self._progress.advance(self._handle, amount, note)


class Silent(Progress):
    """Tells nobody."""

    def start(self, label: str, total: int) -> int:
        """Ignored."""
        return 0

    def advance(self, task: int, amount: int, note: str) -> None:
        """Ignored."""

    def finish(self, task: int) -> None:
        """Ignored."""
