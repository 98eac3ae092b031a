"""The text-to-image pipelines of the zoo: folders that plain diffusers opens, their cards and their judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vestige.digest import digest_file
from vestige.errors import NotFound
from vestige.features.scene_judge import SceneJudge

_FOLDER = Path(__file__).parent / "digits"
_CARD = "vestige.json"
PIPELINES = ("digits-t2i",)


class SpecialTruth(BaseModel):
    """How a caption outside the grammar stood in the training data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    kind: str
    """A value of `vestige.zoo.planted.Kind`."""
    memorized: bool
    """Whether it always came with one single picture."""
    copies: int
    group: int
    """Memorized captions of one group came with the same picture."""
    picture: str | None
    """Row id (as in ``ImageSet.ids``) of the picture of a memorized caption."""


class PipelineCard(BaseModel):
    """What is known about a shipped pipeline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    claim: str
    data: str
    captions: str
    licence: str
    scripts: dict[str, str]
    """The command that made each part."""
    training: dict[str, dict[str, Any]]
    judge: dict[str, Any]
    evaluation: dict[str, Any]
    """What `vestige.zoo.evaluate_t2i` measured on the files beside the card."""
    special: list[SpecialTruth]
    files: dict[str, str]
    """SHA-256 of every file of the pipeline, by its path in the folder."""


@dataclass(frozen=True)
class ZooPipeline:
    """One shipped pipeline."""

    name: str

    @property
    def folder(self) -> Path:
        """Its folder, for ``StableDiffusionPipeline.from_pretrained``."""
        return _FOLDER / self.name

    @property
    def card(self) -> PipelineCard:
        """Its card."""
        return PipelineCard.model_validate_json((self.folder / _CARD).read_bytes())

    @property
    def judge_file(self) -> Path:
        """Weights of the judge of its pictures."""
        return _FOLDER / "scene_judge.safetensors"

    def judge(self) -> SceneJudge:
        """The judge of its pictures: digit, style and colour."""
        return SceneJudge(self.judge_file)

    def files(self) -> dict[str, str]:
        """SHA-256 of every file in its folder but the card, as they are now."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        named = {path.relative_to(self.folder).as_posix(): path for path in paths}
        return {name: digest_file(path) for name, path in named.items() if name != _CARD}

    def write_card(self, card: PipelineCard) -> None:
        """Put a card beside the files."""
        (self.folder / _CARD).write_text(card.model_dump_json(indent=2) + "\n")


def zoo_pipeline(name: str) -> ZooPipeline:
    """A shipped text-to-image pipeline by name.

    Raises
    ------
    NotFound : the zoo has no such pipeline.
    """
    if name not in PIPELINES:
        raise NotFound(
            f"The zoo has no text-to-image pipeline called '{name}'.",
            expected=f"one of {', '.join(PIPELINES)}.",
            remedy="choose one of these.",
        )
    return ZooPipeline(name)
