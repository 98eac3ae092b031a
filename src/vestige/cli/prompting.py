"""What ``vestige audit --prompts`` does with a text-to-image model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from vestige.cli.options import named_sampler
from vestige.cli.settings import by_method, with_settings

if TYPE_CHECKING:
    from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
    from vestige.audit.prompts.detector import PromptDetector
    from vestige.jobs.policy import Policy
    from vestige.models.adapters.text_to_image import Drawing


@dataclass(frozen=True)
class Asked:
    """Options of the audit that shape how prompts are drawn and scored."""

    generations: int
    delta: float
    sampler: str
    steps: int
    guidance: float | None
    settings: tuple[str, ...]
    batch_size: int
    seed: int

    def drawing(self) -> Drawing:
        """Sampler and guidance, without bounds on latents."""
        from dataclasses import replace

        from vestige.models.adapters.text_to_image import Drawing

        plain = replace(named_sampler(self.sampler, self.steps), clip=False)
        guidance = Drawing().guidance if self.guidance is None else self.guidance
        return Drawing(plain, guidance, self.batch_size)

    def chosen(self, names: Sequence[str]) -> tuple[GenerateAndFilter, list[PromptDetector]]:
        """The extraction and the named detectors, or all of them, with their settings.

        Raises
        ------
        NotFound : no such detector. InvalidInput : a setting of none of them.
        """
        import vestige.audit.prompts
        from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
        from vestige.audit.prompts.detector import PromptDetector
        from vestige.discover import method, methods

        every = methods(vestige.audit.prompts, PromptDetector)
        kinds = [method(vestige.audit.prompts, PromptDetector, name) for name in names] or list(every.values())
        extraction = GenerateAndFilter.__name__
        given = by_method(self.settings, [extraction, *every], what="detector of prompts")
        told = [f"generations={self.generations}", f"delta={self.delta}", *given[extraction.lower()]]
        found = [with_settings(kind, given[kind.__name__.lower()]) for kind in kinds]
        return with_settings(GenerateAndFilter, told), found


def audit_prompts(
    model: str,
    prompts: str,
    asked: Asked,
    *,
    data: str | None,
    non_members: str | None,
    out: Path,
    detectors: Sequence[str],
    mitigate: int,
    policy: Policy,
    skip_corrupt: bool,
    show_images: bool,
    overwrite: bool,
) -> NoReturn:
    """Score the prompts, draw them and search the training images for copies; print, and leave with the exit code."""
    from vestige.cli.display import bars, finish
    from vestige.jobs.prompts import audit_prompts as run

    extraction, chosen = asked.chosen(detectors)
    with bars() as progress:
        done = run(
            model,
            prompts,
            data,
            non_members=non_members,
            out=out,
            detectors=chosen,
            extraction=extraction,
            drawing=asked.drawing(),
            mitigate=mitigate,
            policy=policy,
            seed=asked.seed,
            batch_size=asked.batch_size,
            skip_corrupt=skip_corrupt,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    finish(done, f"vestige report {out} --show-images")
    raise typer.Exit(done.record.verdict.exit_code)
