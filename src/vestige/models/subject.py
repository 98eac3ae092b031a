"""The thing under examination: a generator, and whatever else its owner lets be seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vestige.errors import NeedsAccess
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser
from vestige.models.generator import DiffusionGenerator, Generator, SampleBank
from vestige.models.guidance import Guided
from vestige.models.sampler import Sampler


@dataclass(frozen=True)
class Subject:
    """What an audit examines.

    ``denoiser`` is absent when only samples are known. ``folder`` is where the model came
    from, when it came from a folder.
    """

    name: str
    generator: Generator
    denoiser: Denoiser | None
    digest: str
    folder: Path | None = None

    @property
    def access(self) -> Access:
        """The highest level of access that this subject grants."""
        return Access.SAMPLES if self.denoiser is None else self.denoiser.access

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of its images."""
        return self.generator.shape

    @property
    def evaluations(self) -> int:
        """Network evaluations so far."""
        return 0 if self.denoiser is None else self.denoiser.evaluations

    def opened(self, purpose: str) -> Denoiser:
        """The denoiser.

        Raises
        ------
        NeedsAccess : only samples are known; ``purpose`` names what would have needed more.
        """
        if self.denoiser is None:
            raise NeedsAccess(
                f"{purpose} needs more than samples, and {self.name} grants only samples.",
                expected="a model folder, or a callable wrapped by vestige.",
                remedy="pass the model instead of its generated images.",
            )
        return self.denoiser

    @staticmethod
    def of_denoiser(
        name: str,
        denoiser: Denoiser,
        sampler: Sampler,
        *,
        guidance: float | None = None,
        batch_size: int = 128,
        folder: Path | None = None,
    ) -> Subject:
        """A subject whose every level up to the denoiser's is open; ``guidance`` acts on sampling alone."""
        drawn = denoiser if guidance is None else Guided(denoiser, guidance)
        return Subject(name, DiffusionGenerator(drawn, sampler, batch_size), denoiser, denoiser.digest, folder)

    @staticmethod
    def of_samples(name: str, bank: SampleBank) -> Subject:
        """A black box known by its samples."""
        return Subject(name, bank, None, bank.key()["samples"])
