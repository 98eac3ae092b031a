"""Train the Fashion-MNIST models that erasure is compared on: a base, and a reference without its first class.

    python benchmarks/fashion.py --data fashion-mnist --out DIR [--steps 1600]

4,000 training images, 400 a class, are members; the first of them are planted 4, 16 and 64 times, ten images each; as
many test images are non-members. The references are trained for as many steps as show each of their images as
often as the base saw it. Every training checkpoints and resumes; a second call does nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vestige.cli.display import bars
from vestige.data.images import ImageSet
from vestige.train.recipe import Recipe
from vestige.train.trainer import train

A_CLASS, GROUPS, PER_GROUP = 400, (4, 16, 64), 10
RECIPE = Recipe(channels=(16, 32, 64), steps=1600, ema_decay=0.998, seed=20240101)
FORGOTTEN = 0


def read(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images uint8 [n, 1, 28, 28] and labels [n] of the original idx files."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return pixels, labels


def balanced(folder: Path, part: str) -> ImageSet:
    """The first 400 images of every class, classes by turns, so that any run of rows is balanced."""
    pixels, labels = read(folder, part)
    rows = np.stack([np.flatnonzero(labels == c)[:A_CLASS] for c in range(10)], axis=1).ravel()
    return ImageSet(pixels[rows], labels[rows], f"fashion:{part}")


def copies(count: int) -> npt.NDArray[np.int64]:
    """How often each member stands in the training data: the first rows are planted, group by group."""
    times = np.ones(count, np.int64)
    for index, group in enumerate(GROUPS):
        times[index * PER_GROUP : (index + 1) * PER_GROUP] = group
    return times


def models(members: ImageSet) -> dict[str, npt.NDArray[np.bool_]]:
    """Which members each model sees."""
    return {
        "base": np.ones(len(members), bool),
        f"without-class-{FORGOTTEN}": np.asarray(members.labels) != FORGOTTEN,
    }


def main() -> None:
    """Read options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    options = parser.parse_args()
    members, others = balanced(options.data, "train"), balanced(options.data, "t10k")
    times = copies(len(members))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, images in (("members", members.take(np.repeat(np.arange(len(members)), times))), ("others", others)):
        np.savez_compressed(options.out / f"{name}.npz", images=images.pixels, labels=images.labels)
    for name, seen in models(members).items():
        steps = round(options.steps * times[seen].sum() / times.sum())
        rows = np.flatnonzero(seen)
        images = members.take(np.repeat(rows, times[rows]))
        recipe = dataclasses.replace(RECIPE, steps=steps)
        with bars() as progress:
            made = train(recipe, images, options.out / name, progress=progress, label=name)[-1]
        print(f"{name}: {made.folder}, {made.steps} steps", flush=True)


if __name__ == "__main__":
    main()
