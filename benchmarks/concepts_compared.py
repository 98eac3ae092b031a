"""Six concepts of `digits-t2i` erased by every eraser, three of them given back; how many are still drawn.

A concept counts as drawn if the judge names it in the picture of a prompt that does. Kept prompts name none of the six;
they count if the judge names digit, style and colour alike. Every eraser gets the same prompts, starts and seeds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
from vestige.store import write_text
from vestige.zoo.captions import FULL, all_scenes, phrased, word
from vestige.zoo.pipelines import zoo_pipeline
from vestige.zoo.scenes import Colour, Digit, Style

ERASED = {"outlined": "style", "striped": "style", "red": "colour", "blue": "colour", "seven": "digit", "two": "digit"}
CHANCE = {"digit": 1 / len(Digit), "style": 1 / len(Style), "colour": 1 / len(Colour)}
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


@dataclass(frozen=True)
class Trial:
    """What one eraser did from one seed: pictures in which the judge still sees what was wanted.

    Parameters
    ----------
    draws : pictures of each concept, and of the kept prompts.
    forgotten : of each concept, all six being erased.
    kept : of prompts that name none of the six.
    restored : of the three that were given back, in the order of ``RESTORED``.
    identical : of these, pictures that are the base's own, no pixel further than one of 255 levels.
    brought_back, attacked : prompts whose concept an attack brings back, and their number.
    seconds : for the six erasures.
    """

    draws: int
    forgotten: dict[str, int]
    kept: int
    restored: int
    identical: int
    brought_back: int
    attacked: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """The base, its judge and the prompts of all trials; ``work`` keeps what is done."""

    base: TextToImage
    judge: SceneJudge
    draws: int
    work: Path

    def asked(self, concept: str | None) -> Asked:
        """Prompts of a concept, or of none."""
        return asked_for(concept, self.draws)

    def whole(self) -> Trial:
        """The base itself."""
        forgotten = {concept: shown(self.judge, self.base, self.asked(concept)) for concept in ERASED}
        kept = shown(self.judge, self.base, self.asked(None))
        restored = sum(forgotten[concept] for concept in RESTORED)
        return Trial(self.draws, forgotten, kept, restored, self.draws, 0, 0, 0.0)

    def erased(self, eraser: ConceptEraser, seed: int) -> Trial:
        """One erasure of the six, three given back."""
        request = ConceptRequest(tuple(ERASED), TEMPLATES, guard=guards())
        started = time.perf_counter()
        each = [eraser.erase(self.base, request.only(concept), seed=seed)[0] for concept in ERASED]
        seconds = time.perf_counter() - started
        none = active(self.base, each, tuple(ERASED))
        forgotten = {concept: shown(self.judge, none, self.asked(concept)) for concept in ERASED}
        kept = shown(self.judge, none, self.asked(None))
        part = active(self.base, each, [concept for concept in ERASED if concept not in RESTORED])
        restored = sum(shown(self.judge, part, self.asked(concept)) for concept in RESTORED)
        starts = range(len(RESTORED))
        ours, theirs = (model.sample(RESTORED, starts, 1, DRAWING).astype(int) for model in (part, self.base))
        identical = sum(int(np.abs(a - b).max()) <= 1 for a, b in zip(ours, theirs, strict=True))
        hits = [_attacked(self.judge, self.base, none, concept, seed) for concept in ERASED]
        back, tried = (sum(part) for part in zip(*hits, strict=True))
        return Trial(self.draws, forgotten, kept, restored, identical, back, tried, seconds)

    def done(self, name: str, run: Callable[[], Trial]) -> Trial:
        """The trial of this name, from the work folder if it is there."""
        path = self.work / f"{name}.json"
        if path.exists():
            return Trial(**json.loads(path.read_text()))
        trial = run()
        write_text(path, json.dumps(asdict(trial), indent=1) + "\n")
        print(name, asdict(trial), flush=True)
        return trial


def rows(
    folder: Path, judge_file: Path | None, seeds: int, draws: int, work: Path, only: Sequence[str] = ()
) -> list[Row]:
    """The comparison, and the base; trials that are in ``work`` are not run again."""
    judge = zoo_pipeline("digits-t2i").judge() if judge_file is None else SceneJudge(judge_file)
    work.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(load_text_to_image(folder), judge, draws, work)
    found = _rows_of("base", [comparison.done("base", comparison.whole)])
    for name, eraser in erasers().items():
        if only and name not in only:
            continue
        trials = [
            comparison.done(f"{name}-{seed}", lambda e=eraser, s=seed: comparison.erased(e, s)) for seed in range(seeds)
        ]
        found += _rows_of(name, trials)
    return found


def _rows_of(name: str, trials: Sequence[Trial]) -> list[Row]:
    total = sum(trial.draws for trial in trials)
    gone = {concept: sum(trial.forgotten[concept] for trial in trials) for concept in ERASED}
    found = [_row(f"{name}/forgotten/{c}/accuracy", wilson(n, total), CHANCE[ERASED[c]]) for c, n in gone.items()]
    chance = float(np.mean([CHANCE[kind] for kind in ERASED.values()]))
    found.append(_row(f"{name}/forgotten/accuracy", wilson(sum(gone.values()), total * len(gone)), chance))
    found.append(_row(f"{name}/kept/accuracy", wilson(sum(trial.kept for trial in trials), total)))
    if name == "base":
        return found
    again = wilson(sum(trial.restored for trial in trials), total * len(RESTORED))
    same = wilson(sum(trial.identical for trial in trials), len(trials) * len(RESTORED))
    back = wilson(sum(trial.brought_back for trial in trials), sum(trial.attacked for trial in trials))
    found.append(_row(f"{name}/restored/accuracy", again))
    found.append(_row(f"{name}/restored/identical", same))
    found.append(_row(f"{name}/attack/success", back))
    seconds = float(np.mean([trial.seconds for trial in trials]))
    return [*found, Row(f"{name}/seconds", seconds, None, "", None, "s for six concepts", len(trials))]


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


def _row(name: str, share: Interval, chance: float | None = None) -> Row:
    named = "" if chance is None else "chance"
    return Row(name, share.value, chance, named, None, "share of pictures", share.n, share.low, share.high)
