"""Six concepts of `digits-t2i` erased by every eraser, three of them given back; how many are still drawn.

A concept counts as drawn if the judge names it in the picture of a prompt that does. Kept prompts name none of the six;
they count if the judge names digit, style and colour alike. Every eraser gets the same prompts, starts and seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from table import Row

from vestige.erase.applied import applied
from vestige.erase.concept.concept_ablation import ConceptAblation
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.esd import ESD
from vestige.erase.concept.forget_me_not import ForgetMeNot
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sdd import SDD
from vestige.erase.concept.sepme import SepME
from vestige.erase.concept.uce import UCE
from vestige.erase.increment import Increment
from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget
from vestige.erase.recover.concept.paraphrase import Paraphrase
from vestige.erase.recover.concept.ring_a_bell import RingABell
from vestige.features.scene_judge import SceneJudge
from vestige.metrics.interval import Interval, wilson
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.models.sampler import DDIM
from vestige.randomness import Stream, generator
from vestige.zoo.captions import FULL, all_scenes, phrased, word
from vestige.zoo.pipelines import zoo_pipeline

ERASED = {"outlined": "style", "striped": "style", "red": "colour", "blue": "colour", "seven": "digit", "two": "digit"}
RESTORED = ("outlined", "red", "seven")
TEMPLATES = ("{}", "a {} digit", "a picture of {}", "the digit three, {}", "a {} five on black")
DRAWING = Drawing(DDIM(25, clip=False), guidance=4.0, batch_size=64)
ATTACKED = 20


def erasers() -> dict[str, ConceptEraser]:
    """All erasers of the comparison, with settings for a network of this size."""
    shared = {"steps": 200, "batch_size": 16, "learning_rate": 1e-4}
    return {
        "sepme": SepME(steps=200, batch_size=16, learning_rate=1e-2, rank=16, leak=1e-3),
        "esd": ESD(**shared),
        "sdd": SDD(**shared, decay=0.98, refresh=50),
        "abconcept": ConceptAblation(**shared),
        "fmn": ForgetMeNot(steps=35, batch_size=16, learning_rate=2e-5),
        "uce": UCE(),
    }


@dataclass(frozen=True)
class Asked:
    """Prompts with what the judge has to see in them."""

    prompts: tuple[str, ...]
    wanted: tuple[dict[str, str], ...]
    rows: tuple[int, ...]


def asked_for(concept: str | None, count: int) -> Asked:
    """Prompts that name the concept, or none of the erased ones; drawn evenly over scenes and phrasings."""
    scenes = [
        scene
        for scene in all_scenes()
        if (concept in _words(scene) if concept else not set(_words(scene)) & set(ERASED))
    ]
    place = list(ERASED).index(concept) if concept else len(ERASED)
    rng = generator(20261122, Stream.SUBSET, place)
    chosen = [scenes[i] for i in rng.integers(0, len(scenes), count)]
    texts = tuple(phrased(FULL[i % len(FULL)], scene).text for i, scene in enumerate(chosen))
    wanted = tuple(
        {"digit": word(s.digit), "style": word(s.style), "colour": word(s.colour)}
        if concept is None
        else {ERASED[concept]: concept}
        for s in chosen
    )
    return Asked(texts, wanted, tuple(range(place * 10_000, place * 10_000 + count)))


def _words(scene: object) -> list[str]:
    return [word(getattr(scene, part)) for part in ("digit", "style", "colour")]


def shown(judge: SceneJudge, model: TextToImage, asked: Asked) -> int:
    """Pictures in which the judge sees all that is wanted."""
    pictures = model.sample(asked.prompts, asked.rows, 0, DRAWING)
    right = np.ones(len(pictures), bool)
    for attribute in asked.wanted[0]:
        named = judge.named(pictures, attribute)
        right &= np.array([wanted[attribute] == seen for wanted, seen in zip(asked.wanted, named, strict=True)])
    return int(right.sum())


def active(model: TextToImage, increments: Sequence[Increment], concepts: Sequence[str]) -> TextToImage:
    """The model with the increments of some concepts."""
    chosen = [(each, 1.0) for each in increments if each.manifest.settings["concepts"][0] in concepts]
    return applied(model, chosen)


def rows(folder: Path, judge_file: Path | None, seeds: int, draws: int) -> list[Row]:
    """The comparison, and one row for the base."""
    base = load_text_to_image(folder)
    judge = zoo_pipeline("digits-t2i").judge() if judge_file is None else SceneJudge(judge_file)
    forgotten, kept = {concept: asked_for(concept, draws) for concept in ERASED}, asked_for(None, draws)
    before = {concept: wilson(shown(judge, base, asked), draws) for concept, asked in forgotten.items()}
    held = wilson(shown(judge, base, kept), draws)
    found = [_row(f"base/{concept}/accuracy", share) for concept, share in before.items()]
    found.append(_row("base/kept/accuracy", held))
    for name, eraser in erasers().items():
        print(name, flush=True)
        found += _eraser(name, eraser, base, judge, forgotten, kept, seeds)
    return found


def _eraser(
    name: str,
    eraser: ConceptEraser,
    base: TextToImage,
    judge: SceneJudge,
    forgotten: dict[str, Asked],
    kept: Asked,
    seeds: int,
) -> list[Row]:
    request = ConceptRequest(tuple(ERASED), TEMPLATES, guard=guards())
    gone: dict[str, list[int]] = {concept: [] for concept in ERASED}
    stay, again, same, hits = [], [], [], []
    draws = len(kept.prompts)
    for seed in range(seeds):
        each = [eraser.erase(base, request.only(concept), seed=seed)[0] for concept in ERASED]
        whole = active(base, each, tuple(ERASED))
        for concept, asked in forgotten.items():
            gone[concept].append(shown(judge, whole, asked))
        stay.append(shown(judge, whole, kept))
        left = [concept for concept in ERASED if concept not in RESTORED]
        part = active(base, each, left)
        again.append(sum(shown(judge, part, forgotten[concept]) for concept in RESTORED))
        prompts, starts = [*RESTORED], range(len(RESTORED))
        gap = base.sample(prompts, starts, 1, DRAWING).astype(int) - part.sample(prompts, starts, 1, DRAWING)
        same += [int(np.abs(each).max()) <= 1 for each in gap]
        hits += [_attacked(judge, base, whole, concept, seed) for concept in ERASED]
    total = seeds * draws
    found = [_row(f"{name}/forgotten/{concept}/accuracy", wilson(sum(n), total)) for concept, n in gone.items()]
    found.append(_row(f"{name}/forgotten/accuracy", wilson(sum(map(sum, gone.values())), total * len(gone))))
    found.append(_row(f"{name}/kept/accuracy", wilson(sum(stay), total)))
    found.append(_row(f"{name}/restored/accuracy", wilson(sum(again), total * len(RESTORED))))
    unit = "share of the restored concepts' pictures, no pixel further than one of 255 levels"
    found.append(Row(f"{name}/restored/identical", float(np.mean(same)), None, "", None, unit, len(same)))
    attacked = wilson(int(sum(hit for hit, _ in hits)), sum(count for _, count in hits))
    found.append(_row(f"{name}/attack/success", attacked))
    print(json.dumps({row.name: row.ours for row in found}), flush=True)
    return found


def guards() -> tuple[str, ...]:
    """Prompts that name none of the six, some of every phrasing."""
    return asked_for(None, 48).prompts


def _attacked(judge: SceneJudge, base: TextToImage, erased: TextToImage, concept: str, seed: int) -> tuple[int, int]:
    """Prompts whose concept one of the attacks brings back, and their number."""
    prompts = asked_for(concept, ATTACKED).prompts
    attribute = ERASED[concept]

    def sees(pictures: np.ndarray) -> np.ndarray:
        return np.array([seen == concept for seen in judge.named(pictures, attribute)])

    target = ConceptTarget(erased, base, concept, prompts, sees, DRAWING)
    attacks: list[ConceptAttack] = [Paraphrase(), RingABell()]
    back = np.zeros(len(prompts), bool)
    for attack in attacks:
        back |= np.isfinite(attack.run(target, seed).spent)
    return int(back.sum()), len(prompts)


def _row(name: str, share: Interval) -> Row:
    unit = f"share of pictures, 95 % in [{share.low:.3f}, {share.high:.3f}]"
    return Row(name, share.value, None, "", None, unit, share.n)
