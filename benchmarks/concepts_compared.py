"""Six concepts of `digits-t2i` erased by every eraser, three of them given back; how many are still drawn.

A concept counts as drawn if the judge names it in the picture of a prompt that does. Kept prompts name none of the six;
they count if the judge names digit, style and colour alike. Every eraser gets the same prompts, starts and seeds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from table import Row

from vestige.erase.applied import applied
from vestige.erase.concept.concept_ablation import ConceptAblation
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.esd import ESD
from vestige.erase.concept.forget_me_not import ForgetMeNot
from vestige.erase.concept.guarded_sepme import GuardedSepME
from vestige.erase.concept.request import GUARDING, NAMING, ConceptRequest, concept_pattern
from vestige.erase.concept.sdd import SDD
from vestige.erase.concept.sepme import SepME
from vestige.erase.concept.tuning import Weights
from vestige.erase.concept.uce import UCE
from vestige.erase.increment import Increment
from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try
from vestige.erase.recover.concept.paraphrase import Paraphrase, without
from vestige.erase.recover.concept.ring_a_bell import RingABell
from vestige.features.scene_judge import SceneJudge
from vestige.metrics.interval import Interval, wilson
from vestige.models.adapters.text_to_image import Drawing, Pixels, TextToImage
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.models.sampler import DDIM
from vestige.randomness import Stream, generator
from vestige.store import write_text
from vestige.zoo.captions import FULL, all_scenes, phrased, word
from vestige.zoo.pipelines import zoo_pipeline
from vestige.zoo.scenes import Colour, Digit, Scene, Style

ERASED = {"outlined": "style", "striped": "style", "red": "colour", "blue": "colour", "seven": "digit", "two": "digit"}
CHANCE = {"digit": 1 / len(Digit), "style": 1 / len(Style), "colour": 1 / len(Colour)}
RESTORED = ("outlined", "red", "seven")
DRAWING = Drawing(DDIM(12, clip=False), guidance=4.0, batch_size=64)
ATTACKED = 10
KEPT = 3


def erasers() -> dict[str, ConceptEraser]:
    """All erasers of the comparison, with settings for a network of this size.

    SepME stands there twice, as it is published and with what vestige adds. The tuned ones have the learning rate at
    which forgetting less what is lost of other prompts was largest on another seed: 3e-5 rather than 1e-4, where they
    forget more and keep a fifth to seven tenths, or 1e-5, where ESD and ConceptAblation forget nothing; ForgetMeNot the
    best of ten pairs of weights and rates, from all at 5e-6 to cross-attention at 3e-4.
    """
    course: dict[str, Any] = {"steps": 200, "batch_size": 12, "trajectories": 1, "sampling_steps": 12}
    tuned = {**course, "weights": Weights.KEYS_AND_VALUES}
    return {
        "sepme": GuardedSepME(),
        "sepme_as_published": SepME(**course, rank=64, leak=1e-2),
        "esd": ESD(**tuned, learning_rate=3e-5),
        "sdd": SDD(**tuned, learning_rate=3e-5, decay=0.98, refresh=50),
        "abconcept": ConceptAblation(**tuned, learning_rate=3e-5),
        "fmn": ForgetMeNot(**{**tuned, "steps": 35}, learning_rate=2e-4),
        "uce": UCE(),
    }


@dataclass(frozen=True)
class Asked:
    """Prompts with what the judge has to see in them."""

    prompts: tuple[str, ...]
    wanted: tuple[dict[str, str], ...]
    rows: tuple[int, ...]


def asked_for(concept: str | None, count: int, seed: int) -> Asked:
    """Prompts that name the concept, or none of the erased ones; drawn evenly over scenes and phrasings."""
    scenes = [
        scene
        for scene in all_scenes()
        if (concept in _words(scene) if concept else not set(_words(scene)) & set(ERASED))
    ]
    place = list(ERASED).index(concept) if concept else len(ERASED)
    rng = generator(seed, Stream.SUBSET, place)
    chosen = [scenes[i] for i in rng.integers(0, len(scenes), count)]
    texts = tuple(phrased(FULL[i % len(FULL)], scene).text for i, scene in enumerate(chosen))
    wanted = tuple(
        {"digit": word(s.digit), "style": word(s.style), "colour": word(s.colour)}
        if concept is None
        else {ERASED[concept]: concept}
        for s in chosen
    )
    return Asked(texts, wanted, tuple(range(place * 10_000, place * 10_000 + count)))


def _words(scene: Scene) -> list[str]:
    return [word(getattr(scene, part)) for part in ("digit", "style", "colour")]


def shown(judge: SceneJudge, model: TextToImage, asked: Asked, seed: int) -> int:
    """Pictures in which the judge sees all that is wanted."""
    pictures = model.sample(asked.prompts, asked.rows, seed, DRAWING)
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
    draws : pictures of each concept; of the kept prompts ``KEPT`` times as many.
    forgotten : of each concept, all six being erased.
    kept : of prompts that name none of the six.
    restored : of the three that were given back, in the order of ``RESTORED``.
    still : of the other three, when those are back.
    identical : of these, pictures that are the base's own, no pixel further than one of 255 levels.
    brought_back, attacked : prompts whose concept an attack brings back, and their number.
    seconds : for the six erasures.
    """

    draws: int
    forgotten: dict[str, int]
    kept: int
    restored: int
    still: int
    identical: int
    brought_back: int
    attacked: int
    seconds: float


@dataclass(frozen=True)
class Prepared(ConceptAttack):
    """Conditions that were found before, whatever was erased."""

    claim: ClassVar[str] = "tries what was prepared"
    source: ClassVar[str] = "Tsai et al. 2024 (Ring-A-Bell), arXiv 2310.10012, and paraphrases"

    prepared: tuple[Try, ...] = ()

    def tries(self, target: ConceptTarget, seed: int) -> Iterator[Try]:
        """One after the other."""
        yield from self.prepared


@dataclass(frozen=True, eq=False)
class Attacks:
    """Attacks that need no evaluation of the erased model before a try, so that they are found once for all erasers."""

    base: TextToImage
    judge: SceneJudge
    found: dict[tuple[str, int], tuple[Try, ...]] = field(default_factory=dict)

    def tries(self, concept: str, seed: int) -> tuple[Try, ...]:
        """Paraphrases, and what Ring-A-Bell finds."""
        if (concept, seed) not in self.found:
            target = self.target(self.base, concept, seed)
            told = [*Paraphrase().tries(target, seed), *RingABell().tries(target, seed)]
            self.found[concept, seed] = tuple(told)
        return self.found[concept, seed]

    def target(self, erased: TextToImage, concept: str, seed: int) -> ConceptTarget:
        """The model, the prompts and the judge."""

        def sees(pictures: Pixels) -> npt.NDArray[np.bool_]:
            return np.array([seen == concept for seen in self.judge.named(pictures, ERASED[concept])])

        return ConceptTarget(erased, self.base, concept, asked_for(concept, ATTACKED, seed).prompts, sees, DRAWING)

    def brought_back(self, erased: TextToImage, seed: int) -> int:
        """Prompts, of all concepts, for which one of the tries shows the concept again."""
        runs = [Prepared(self.tries(concept, seed)).run(self.target(erased, concept, seed), seed) for concept in ERASED]
        return sum(int(np.isfinite(run.spent).sum()) for run in runs)

    def floor(self, seed: int) -> int:
        """The same where there is nothing to bring back: the base, as often, and the concept not in the prompt."""
        back = 0
        for concept in ERASED:
            target = self.target(self.base, concept, seed)
            rest = self.base.embeddings([without(prompt, concept) for prompt in target.prompts])
            silent = Prepared((Try(rest),) * len(self.tries(concept, seed)))
            back += int(np.isfinite(silent.run(target, seed).spent).sum())
        return back


@dataclass(frozen=True, eq=False)
class Comparison:
    """The base, its judge and the prompts of all trials; ``work`` keeps what is done."""

    base: TextToImage
    judge: SceneJudge
    draws: int
    work: Path
    attacks: Attacks

    def shown(self, model: TextToImage, concept: str | None, seed: int) -> int:
        """Pictures of the prompts of a concept, or of none, in which the judge sees what is wanted."""
        draws = self.draws if concept else KEPT * self.draws
        return shown(self.judge, model, asked_for(concept, draws, seed), seed)

    def whole(self, seed: int) -> Trial:
        """The base itself; attacked with prompts that do not name the concept."""
        forgotten = {concept: self.shown(self.base, concept, seed) for concept in ERASED}
        kept = self.shown(self.base, None, seed)
        restored = sum(forgotten[concept] for concept in RESTORED)
        still = sum(forgotten.values()) - restored
        back = self.attacks.floor(seed)
        return Trial(self.draws, forgotten, kept, restored, still, len(RESTORED), back, ATTACKED * len(ERASED), 0.0)

    def erased(self, eraser: ConceptEraser, seed: int) -> Trial:
        """One erasure of the six, three given back."""
        started = time.perf_counter()
        each = [eraser.erase(self.base, request_for(concept, seed), seed=seed)[0] for concept in ERASED]
        seconds = time.perf_counter() - started
        none = active(self.base, each, tuple(ERASED))
        forgotten = {concept: self.shown(none, concept, seed) for concept in ERASED}
        kept = self.shown(none, None, seed)
        others = [concept for concept in ERASED if concept not in RESTORED]
        part = active(self.base, each, others)
        still = sum(self.shown(part, concept, seed) for concept in others)
        restored = sum(self.shown(part, concept, seed) for concept in RESTORED)
        starts = range(len(RESTORED))
        ours, theirs = (model.sample(RESTORED, starts, seed, DRAWING).astype(int) for model in (part, self.base))
        identical = sum(int(np.abs(a - b).max()) <= 1 for a, b in zip(ours, theirs, strict=True))
        back = self.attacks.brought_back(none, seed)
        return Trial(self.draws, forgotten, kept, restored, still, identical, back, ATTACKED * len(ERASED), seconds)

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
    base = load_text_to_image(folder)
    comparison = Comparison(base, judge, draws, work, Attacks(base, judge))
    whole = [comparison.done(f"base-{seed}", lambda s=seed: comparison.whole(s)) for seed in range(seeds)]
    found = _rows_of("base", whole, whole)
    for name, eraser in erasers().items():
        if only and name not in only:
            continue
        trials = [
            comparison.done(f"{name}-{seed}", lambda e=eraser, s=seed: comparison.erased(e, s)) for seed in range(seeds)
        ]
        found += _rows_of(name, trials, whole)
    return found


def _rows_of(name: str, trials: Sequence[Trial], base: Sequence[Trial]) -> list[Row]:
    total, half = sum(trial.draws for trial in trials), len(RESTORED)
    gone = {concept: sum(trial.forgotten[concept] for trial in trials) for concept in ERASED}
    found = [_row(f"{name}/forgotten/{c}/accuracy", wilson(n, total), CHANCE[ERASED[c]]) for c, n in gone.items()]
    chance = float(np.mean([CHANCE[kind] for kind in ERASED.values()]))
    found.append(_row(f"{name}/forgotten/accuracy", wilson(sum(gone.values()), total * len(gone)), chance))
    before = sum(trial.kept for trial in base) / sum(KEPT * trial.draws for trial in base)
    found.append(_row(f"{name}/kept/accuracy", wilson(sum(t.kept for t in trials), KEPT * total), before, "base"))
    floor = sum(trial.brought_back for trial in base) / sum(trial.attacked for trial in base)
    back = wilson(sum(trial.brought_back for trial in trials), sum(trial.attacked for trial in trials))
    found.append(_row(f"{name}/attack/success", back, floor, "nothing to bring back"))
    if name == "base":
        return found
    drawn = sum(trial.restored for trial in base) / sum(half * trial.draws for trial in base)
    again = wilson(sum(trial.restored for trial in trials), total * half)
    found.append(_row(f"{name}/restored/accuracy", again, drawn, "base"))
    found.append(_row(f"{name}/restored/identical", wilson(sum(t.identical for t in trials), len(trials) * half)))
    left = float(np.mean([CHANCE[kind] for concept, kind in ERASED.items() if concept not in RESTORED]))
    found.append(_row(f"{name}/still/accuracy", wilson(sum(t.still for t in trials), total * half), left))
    seconds = float(np.mean([trial.seconds for trial in trials]))
    unit = "s for six concepts, one thread beside other work"
    return [*found, Row(f"{name}/seconds", seconds, None, "", None, unit, len(trials))]


def request_for(concept: str, seed: int) -> ConceptRequest:
    """The concept in captions whose other words stay; the bare words of the others are kept, other captions guarded.

    Half of the guards name some of the others. Captions are drawn apart from those that are judged.
    """
    scenes = [scene for scene in all_scenes() if concept not in _words(scene)]
    free, others = (
        [scene for scene in scenes if bool(set(_words(scene)) & set(ERASED)) is named] for named in (False, True)
    )
    rng = generator(seed, Stream.SUBSET, len(ERASED) + 1)
    chosen = [free[i] for i in rng.choice(len(free), NAMING + GUARDING // 2, replace=False)]
    chosen += [others[i] for i in rng.choice(len(others), GUARDING // 2, replace=False)]
    kind = ERASED[concept]
    thing = {"digit": Digit, "style": Style, "colour": Colour}[kind][concept.upper()]
    own: list[Scene] = [replace(scene, **{kind: thing}) for scene in chosen[:NAMING]]
    templates = [concept_pattern(concept).sub("{}", text) for text in _told(own)]
    kept = tuple(other for other in ERASED if other != concept)
    return ConceptRequest((concept,), ("{}", *templates), keep=kept, guard=_told(chosen[NAMING:]))


def _told(scenes: Sequence[Scene]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(phrased(FULL[i % len(FULL)], scene).text for i, scene in enumerate(scenes)))


def _row(name: str, share: Interval, chance: float | None = None, called: str = "chance") -> Row:
    return Row(
        name,
        share.value,
        chance,
        "" if chance is None else called,
        None,
        "share of pictures",
        share.n,
        share.low,
        share.high,
    )
