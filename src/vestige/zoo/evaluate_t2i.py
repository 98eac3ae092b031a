"""Examine a text-to-image pipeline of scenes: does it draw what captions say, and what did it memorize?

    python -m vestige.zoo.evaluate_t2i --pipeline DIR --judge judge.safetensors --out evaluation.json [--grids DIR]

Prompts: one picture for each of the 1,050 scenes, phrasings in turn, and pictures of the 22 single words. An attribute
counts as drawn if the judge names it. Memorized captions: several pictures of each special caption, and the share that
lies within a root mean squared difference of 0.1 (values in [0, 1]) of the picture that the caption came with; for
captions that came with many pictures the nearest of these counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from vestige.data.images import to_uint8
from vestige.features.scene_judge import SceneJudge
from vestige.metrics.frechet import Gaussian, frechet_distance
from vestige.metrics.interval import Interval, wilson
from vestige.randomness import Stream, normal
from vestige.store import write_text
from vestige.zoo.captions import FULL, Caption, all_scenes, phrased, understood
from vestige.zoo.pictures import held_out_pairs, rendered, special_pairs
from vestige.zoo.planted import COPIES, Kind, Special, special_captions
from vestige.zoo.scenes import Colour, Digit, Style
from vestige.zoo.t2i_parts import LATENT

SEED, STEPS, GUIDANCE = 20261010, 15, 4.0
DRAWS, NEAR = 8, 0.1
_BATCH = 64

Pixels = npt.NDArray[np.uint8]


def drawn_pictures(
    pipeline: Any,
    texts: Sequence[str],
    rows: Sequence[int],
    *,
    seed: int = SEED,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Pixels:
    """One picture uint8 [n, 3, 32, 32] a text; the noise that it starts from belongs to ``(seed, row)``."""
    parts = [np.zeros((0, 3, 32, 32), np.uint8)]
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(texts), _BATCH):
        noise = torch.from_numpy(normal(seed, Stream.SAMPLE, rows[start : start + _BATCH], LATENT))
        answer = pipeline(
            list(texts[start : start + _BATCH]),
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=noise,
            output_type="pt",
        )
        parts.append(to_uint8(answer.images * 2 - 1))
    return np.concatenate(parts)


def stated(rate: Interval) -> list[float]:
    """Rate, bounds of its interval and the number of trials."""
    return [round(rate.value, 4), round(rate.low, 4), round(rate.high, 4), rate.n]


def prompt_accuracy(pipeline: Any, judge: SceneJudge, grids: Path | None = None) -> dict[str, Any]:
    """Share of pictures that show the digit, style and colour that the prompt names, each with its interval."""
    captions = [phrased(FULL[place % len(FULL)], scene) for place, scene in enumerate(all_scenes())]
    pictures = drawn_pictures(pipeline, [caption.text for caption in captions], range(len(captions)))
    right = drawn_rightly(judge, captions, pictures)
    found: dict[str, Any] = {name: stated(wilson(int(hit.sum()), len(hit))) for name, hit in right.items()}
    every = np.logical_and.reduce(list(right.values()))
    found["all three"] = stated(wilson(int(every.sum()), len(every)))
    reference = judge.features(rendered([pair.shown for pair in held_out_pairs(2 * len(captions))]))
    half = Gaussian.fit(reference[: len(captions)])
    found["frechet"] = round(frechet_distance(Gaussian.fit(judge.features(pictures)), half), 3)
    found["frechet_of_pictures"] = round(frechet_distance(Gaussian.fit(reference[len(captions) :]), half), 3)
    if grids is not None:
        save_grid(grids / "prompts.png", pictures, columns=35)
    return found


def word_accuracy(pipeline: Any, judge: SceneJudge, draws: int = 20, grids: Path | None = None) -> dict[str, Any]:
    """The same for prompts of a single word."""
    words = [thing.name.lower() for kind in (Digit, Style, Colour) for thing in kind]
    texts = [word for word in words for _ in range(draws)]
    pictures = drawn_pictures(pipeline, texts, range(10_000, 10_000 + len(texts)))
    said = [understood(text) for text in texts]
    hits = np.logical_or.reduce(list(drawn_rightly(judge, said, pictures, fill=False).values()))
    if grids is not None:
        save_grid(grids / "words.png", pictures, columns=draws)
    return {word: stated(wilson(int(hits[i * draws : (i + 1) * draws].sum()), draws)) for i, word in enumerate(words)}


def drawn_rightly(
    judge: SceneJudge, captions: Sequence[Caption], pictures: Pixels, *, fill: bool = True
) -> dict[str, npt.NDArray[np.bool_]]:
    """For digit, style and colour: whether the judge names what the caption does; ``fill`` where it names nothing."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for name in ("digit", "style", "colour"):
        seen = judge.named(pictures, name)
        said = [getattr(caption, name) for caption in captions]
        found[name] = np.array(
            [fill if word is None else word.name.lower() == what for word, what in zip(said, seen, strict=True)]
        )
    return found


def memorization(pipeline: Any, draws: int = DRAWS, grids: Path | None = None) -> dict[str, Any]:
    """Share of special captions' pictures that repeat a picture they came with, by kind and copies."""
    specials = special_captions()
    texts = [special.text for special in specials for _ in range(draws)]
    pictures = drawn_pictures(pipeline, texts, range(20_000, 20_000 + len(texts)))
    apart = np.stack(
        [
            _distance(pictures[place * draws : (place + 1) * draws], _own(special, specials))
            for place, special in enumerate(specials)
        ]
    )
    found: dict[str, Any] = {"near": NEAR, "draws": draws}
    for kind in Kind:
        for copies in sorted({special.copies for special in specials if special.kind is kind}):
            chosen = [i for i, one in enumerate(specials) if one.kind is kind and one.copies == copies]
            near = apart[chosen] <= NEAR
            found[f"{kind.value} x{copies}"] = {
                "captions": len(chosen),
                "pictures_near": stated(wilson(int(near.sum()), near.size)),
                "captions_mostly_near": stated(wilson(int((near.mean(1) > 0.5).sum()), len(chosen))),
                "median_distance": round(float(np.median(apart[chosen])), 4),
            }
    if grids is not None:
        save_grid(grids / "special.png", pictures, columns=5 * draws)
    return found


def _own(special: Special, specials: Sequence[Special]) -> Pixels:
    """The pictures that a caption came with; of an unseen filler those of its template, of an unseen pair of words
    those of all planted captions, by which its accidents are measured."""
    if special.copies:
        related = [special]
    elif special.kind is Kind.UNSEEN:
        related = [one for one in specials if one.kind is Kind.PLANTED and one.copies == max(COPIES)]
    else:
        related = [one for one in specials if one.group == special.group and one.copies]
    return rendered(list(dict.fromkeys(pair.shown for one in related for pair in special_pairs(one))))


def _distance(pictures: Pixels, own: Pixels) -> npt.NDArray[np.float64]:
    """Root mean squared difference in [0, 1] of each picture to the nearest of ``own``."""
    first, second = (part.reshape(len(part), 1, -1).astype(np.float64) / 255 for part in (pictures, own))
    return np.sqrt(((first - second.swapaxes(0, 1)) ** 2).mean(2)).min(1)


def save_grid(path: Path, pictures: Pixels, columns: int) -> None:
    """Write pictures as one image, twice as large."""
    rows = -(-len(pictures) // columns)
    canvas = np.zeros((rows * columns, 3, 32, 32), np.uint8)
    canvas[: len(pictures)] = pictures
    sheet = canvas.reshape(rows, columns, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(rows * 32, columns * 32, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.repeat(2, 0).repeat(2, 1)).save(path)


def evaluate(folder: Path, judge: SceneJudge, out: Path, grids: Path | None = None) -> dict[str, Any]:
    """Measure and write the results as JSON."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    found = {
        "seed": SEED,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "prompts": prompt_accuracy(pipeline, judge, grids),
        "words": word_accuracy(pipeline, judge, grids=grids),
        "memorization": memorization(pipeline, grids=grids),
    }
    write_text(out, json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grids", type=Path)
    options = parser.parse_args()
    print(json.dumps(evaluate(options.pipeline, SceneJudge(options.judge), options.out, options.grids), indent=2))
