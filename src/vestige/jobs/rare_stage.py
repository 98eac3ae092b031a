"""Where a search takes place: the space that selects, what real images are like there, and the references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vestige.audit.membership.rows import choose as some_rows
from vestige.data.images import ImageSet, check_fits
from vestige.errors import CorruptFile, EmptySet, InvalidInput, NotFound, ShapeMismatch
from vestige.features.digit_classifier import DigitClassifier
from vestige.features.pixels import BlockMeans
from vestige.jobs.metrics_features import DIGITS, PIXELS
from vestige.jobs.rare_generator import Opened
from vestige.metrics.arrays import FloatArray
from vestige.models.latent import Calls
from vestige.rare.density.choose import Choice, candidates, choose
from vestige.rare.density.density import Density
from vestige.rare.density.preparation import Preparation
from vestige.rare.invert import Inverted, near_images
from vestige.rare.manifold import Manifold
from vestige.rare.objective import Controls
from vestige.rare.scene import References, Scene, anywhere, near
from vestige.rare.space import Space, block_space, digit_space, vision_space

SpaceLike = str | Path | Space

BANK, MOST = 2000, 10_000
"""Generations from which distances are read; real images that are used, drawn by seed, where there are more."""

_TRIES = 64
_CHOICE, _NARROW = 4, 0.5
"""Draws in the manifold for every reference, and share of their median reach below which one is passed over."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A scene with what it was built from.

    ``calls`` is what the bank and the references cost in generator calls; ``inverted`` the inversion of a reference
    image; ``passed`` how many draws of the prior were passed over as references.
    """

    scene: Scene
    choice: Choice
    real: ImageSet
    bank: FloatArray
    references: References
    calls: Calls
    inverted: Inverted | None
    passed: int


def open_space(features: SpaceLike, classifier: DigitClassifier | None, shape: tuple[int, ...]) -> Space:
    """The differentiable space of that name, ``pixels`` or ``digits``, or of a transformers folder.

    Raises
    ------
    NotFound : neither. ShapeMismatch : the digit classifier was asked for other images than 28x28 grey ones.
    """
    if isinstance(features, Space):
        return features
    if str(features) == PIXELS:
        return block_space(BlockMeans(side=min(6, *shape[1:])))
    if str(features) == DIGITS:
        if classifier is None or shape != (1, 28, 28):
            raise ShapeMismatch(
                f"The digit classifier was asked for images of shape {shape}.",
                expected="grey images of 28x28 pixels.",
                remedy="use --features pixels, or the folder of a vision model.",
            )
        return digit_space(classifier)
    from vestige.features.transformers import is_vision_folder, vision_features

    if is_vision_folder(Path(features)):
        return vision_space(vision_features(Path(features)))
    raise NotFound(
        f"No features are called '{features}', and no folder of that name holds a config.json.",
        expected=f"{PIXELS}, {DIGITS}, or the folder of a vision model of transformers.",
        remedy="correct --features.",
    )


def set_stage(
    opened: Opened,
    real: ImageSet,
    space: Space,
    *,
    controls: Controls,
    groups: int,
    reference: str | Path | None,
    densities: Sequence[Density] | None = None,
    neighbours: int = 3,
    seed: int = 0,
) -> Stage:
    """Learn the real images in the space, make a bank of generations, and find the references.

    With a ``reference``, an image file, every group starts from its inversion. Without, groups start from draws of
    the generator that lie in the real manifold or, where the similarity is 0, from draws of the prior.

    Raises
    ------
    ShapeMismatch : images of another size than the generator's. EmptySet : too few real images.
    InvalidInput : constant features; a reference, or every draw, outside the real manifold.
    """
    wanted = controls.neighbours(BANK)
    image = _asked(opened, real, wanted, reference, neighbours)
    used = real if len(real) <= MOST else real.take(some_rows(len(real), MOST, seed))
    features = space.of(used.pixels)
    manifold = Manifold(features, neighbours)
    target = None if image is None else _inside(space.of(image), manifold, f"{reference}")
    tried = candidates(len(features)) if densities is None else densities
    choice = choose(tried, features, preparation=Preparation(drop_constant=True), seed=seed)
    scene = Scene(opened.generator, space, choice.best, manifold)
    before, bank = scene.generator.calls, scene.bank(BANK, seed)
    inverted, passed = None, 0
    if wanted is None:
        references = anywhere(scene, range(groups))
    elif target is None:
        references, passed = _drawn(scene, bank, wanted, groups, seed)
    else:
        one, inverted = near_images(scene, target, bank, neighbours=wanted, seed=seed)
        references = repeated(one, groups)
    return Stage(scene, choice, used, bank, references, scene.generator.calls.since(before), inverted, passed)


def _asked(
    opened: Opened, real: ImageSet, wanted: int | None, reference: str | Path | None, neighbours: int
) -> npt.NDArray[np.uint8] | None:
    """The reference image, if there is one, once it and the real images are known to suit."""
    shape = image_shape(opened)
    check_fits(real, shape, opened.name)
    if len(real) <= neighbours:
        raise EmptySet(
            f"{real.source} holds {len(real)} images.",
            expected=f"more than k = {neighbours}: a real image's ball reaches its k-th nearest other one.",
            remedy="give more real images as --data, or a smaller --k.",
        )
    if reference is None:
        return None
    if wanted is None:
        raise InvalidInput(
            "A reference was given, and a similarity of 0, which lets samples go anywhere.",
            expected="a similarity above 0, or no reference.",
            remedy="leave one of them away.",
        )
    return read_reference(reference, shape)


def _inside(features: FloatArray, manifold: Manifold, source: str) -> FloatArray:
    """The features [1, d] of the reference; InvalidInput where they lie outside the real manifold."""
    place = manifold.locate(features)
    if place.inside.all():
        return features
    raise InvalidInput(
        f"{source} lies outside the real manifold, at {place.ratio[0]:.3g} radii of the nearest real image's ball.",
        expected=f"an image nearer to some real image than that one's k-th nearest other (k = {manifold.neighbours}).",
        remedy="choose a --reference like the images of --data, give more of those, a larger --k or other --features.",
    )


def repeated(one: References, groups: int) -> References:
    """The same reference for so many groups, each with starts of its own."""
    labels = None if one.labels is None else one.labels.expand(groups).clone()
    return replace(
        one,
        latents=one.latents.expand(groups, *one.latents.shape[1:]).clone(),
        features=one.features.repeat(groups, 0),
        reach=one.reach.repeat(groups),
        unit=one.unit.repeat(groups),
        rows=np.arange(groups),
        labels=labels,
    )


def read_reference(path: str | Path, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """An image file as uint8 [1, c, h, w] of the generator's shape.

    Raises
    ------
    NotFound, CorruptFile, ShapeMismatch : see each message.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"There is no image {path}.", expected="an image file.", remedy="correct --reference.")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"))
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise CorruptFile(
            f"{path} cannot be decoded as an image.", expected="an intact image file.", remedy="save it again."
        ) from error
    pixels = pixels[None, None] if shape[0] == 1 else np.moveaxis(pixels, -1, 0)[None]
    check_fits(ImageSet(np.ascontiguousarray(pixels), source=str(path)), shape, "the generator")
    return np.ascontiguousarray(pixels)


def _drawn(scene: Scene, bank: FloatArray, neighbours: int, groups: int, seed: int) -> tuple[References, int]:
    """Draws of the prior that lie in the real manifold, classes by turns, and how many were passed over.

    Passed over is also a draw around which the generator makes nearly the same image again and again, as where it has
    memorized one: there is nothing different to be found near it.
    """
    generator, classes = scene.generator, max(1, scene.generator.classes)
    found, wide, reach, taken = list[int](), list[int](), list[float](), 0
    for block in np.array_split(np.arange(_TRIES * groups, dtype=np.int64), _TRIES):
        features = scene.features(generator.latents(block, seed), generator.labels_of(block))
        inside = scene.manifold.locate(features).inside
        gaps = (np.linalg.norm(bank - x, axis=1) for x in features[inside])
        reach += [float(np.partition(gap, neighbours - 1)[neighbours - 1]) for gap in gaps]
        found += block[inside].tolist()
        taken = int(block[-1]) + 1
        wide = [row for row, far in zip(found, reach, strict=True) if far >= _NARROW * np.median(reach)]
        enough = len(found) >= _CHOICE * groups and len(wide) >= groups
        if enough and len({row % classes for row in wide}) >= min(groups, classes):
            break
    else:
        wide = wide if len(wide) >= groups else found
    if len(wide) < groups:
        raise InvalidInput(
            f"Only {len(found)} of {taken:,} images of the generator lie in the real manifold, for {groups} groups.",
            expected=f"at least {groups}.",
            remedy="check that --data shows what the generator was trained on, at the same brightness, or use other "
            "--features.",
        )
    # One reference of each class before a second of any.
    place = {row: sum(r % classes == row % classes for r in wide[:i]) for i, row in enumerate(wide)}
    chosen = np.array(sorted(sorted(wide, key=lambda row: (place[row], row))[:groups]), np.int64)
    latents, labels = generator.latents(chosen, seed), generator.labels_of(chosen)
    references = near(scene, latents, bank, neighbours=neighbours, labels=labels, rows=chosen.tolist())
    return references, taken - len(wide)


def image_shape(opened: Opened) -> tuple[int, int, int]:
    """(channels, height, width) of what it makes; ShapeMismatch where that is no image."""
    shape = opened.generator.shape
    if len(shape) != 3 or opened.generator.pixels is None:
        raise ShapeMismatch(
            f"{opened.name} makes outputs of shape {shape}.",
            expected="images [channels, height, width] within a declared range.",
            remedy="search outputs that are no images with vestige.rare.search directly.",
        )
    channels, height, width = shape
    return channels, height, width
