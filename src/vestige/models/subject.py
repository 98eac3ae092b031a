"""The thing under examination: a generator, and whatever else its owner lets be seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vestige.digest import digest_json
from vestige.errors import NeedsAccess, ShapeMismatch
from vestige.models.access import Access
from vestige.models.critic import Critic
from vestige.models.denoiser import Denoiser
from vestige.models.generator import DiffusionGenerator, Generator, SampleBank
from vestige.models.guidance import Guided
from vestige.models.sampler import Sampler


@dataclass(frozen=True)
class Subject:
    """What an audit examines.

    ``denoiser`` is absent for a GAN and when only samples are known; ``critic`` is a GAN's
    discriminator, when its owner kept it. ``folder`` is where the model came from, when it
    came from a folder.
    """

    name: str
    generator: Generator
    denoiser: Denoiser | None
    digest: str
    folder: Path | None = None
    critic: Critic | None = None

    @property
    def access(self) -> Access:
        """The highest level of access that this subject grants: a critic's logit is a loss of the image it judges."""
        if self.denoiser is not None:
            return self.denoiser.access
        return Access.SAMPLES if self.critic is None else Access.LOSSES

    @property
    def is_gan(self) -> bool:
        """Whether the model itself is here and is no diffusion model, so that it has no denoiser."""
        return self.generator.implicit

    @property
    def classes(self) -> int:
        """Number of class labels the model knows."""
        return self.generator.classes if self.denoiser is None else self.denoiser.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of its images."""
        return self.generator.shape

    @property
    def evaluations(self) -> int:
        """Network evaluations so far."""
        counted = (self.generator, self.denoiser, self.critic)
        return sum(part.evaluations for part in counted if part is not None)

    def opened(self, purpose: str) -> Denoiser:
        """The denoiser.

        Raises
        ------
        NeedsAccess : only samples are known, or it is a GAN; ``purpose`` names what would have needed more.
        """
        if self.is_gan:
            raise NeedsAccess(
                f"{purpose} needs a denoiser, and {self.name} is a GAN.",
                expected="a diffusion model.",
                remedy="audit the GAN, or pass a diffusion model.",
            )
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

    @staticmethod
    def of_gan(name: str, generator: Generator, critic: Critic | None = None, *, folder: Path | None = None) -> Subject:
        """A GAN, with its discriminator where that was kept.

        Raises
        ------
        ShapeMismatch : the critic judges images of another shape.
        """
        if critic is not None and critic.shape != generator.shape:
            raise ShapeMismatch(
                f"The critic judges images of shape {critic.shape}, the generator makes {generator.shape}.",
                expected="two networks for images of one shape.",
                remedy="pass the critic that was trained against this generator.",
            )
        parts = {"generator": generator.key(), "critic": None if critic is None else critic.digest}
        return Subject(name, generator, None, digest_json(parts), folder, critic)
