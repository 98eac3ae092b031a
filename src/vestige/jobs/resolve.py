"""From what a person typed to models and images: zoo names, folders, files or objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vestige.data.images import ImageSet, check_fits
from vestige.data.load import load_images
from vestige.errors import InvalidInput, NotFound, Unsupported
from vestige.features.extractor import Classifier, FeatureExtractor
from vestige.features.pixels import BlockMeans
from vestige.models.critic import Critic
from vestige.models.denoiser import Denoiser
from vestige.models.generator import Generator, SampleBank
from vestige.models.sampler import Sampler
from vestige.models.subject import Subject
from vestige.zoo import MODELS, ZooModel, zoo_model

ModelLike = str | Path | Denoiser | Generator | Subject | Any
DataLike = str | Path | ImageSet


@dataclass(frozen=True)
class Loading:
    """How a model is to be read and sampled."""

    sampler: Sampler
    batch_size: int = 128
    null_condition: int | None = None
    guidance: float | None = None

    def subject(self, name: str, denoiser: Denoiser, folder: Path | None = None) -> Subject:
        """A denoiser, sampled as these settings say."""
        return Subject.of_denoiser(
            name, denoiser, self.sampler, guidance=self.guidance, batch_size=self.batch_size, folder=folder
        )

    def gan(self, name: str, generator: Generator, critic: Critic | None = None, folder: Path | None = None) -> Subject:
        """A GAN, which has nothing to guide.

        Raises
        ------
        InvalidInput : guidance or a null condition was asked for.
        """
        if self.guidance is not None or self.null_condition is not None:
            raise InvalidInput(
                f"Guidance {self.guidance} and null condition {self.null_condition} were given for {name}, a GAN.",
                expected="a diffusion model, or neither of them.",
                remedy="leave --guidance and --null-condition away.",
            )
        return Subject.of_gan(name, generator, critic, folder=folder)


def zoo_entry(model: ModelLike) -> ZooModel | None:
    """The zoo's entry, if the model was named by its zoo name."""
    return zoo_model(model) if isinstance(model, str) and model in MODELS else None


def resolve_model(model: ModelLike, loading: Loading) -> Subject:
    """A subject from a zoo name, a diffusers or GAN folder, a folder or npz of samples, or an object.

    Objects are a pipeline, a denoiser, a generator, or a subject itself (a GAN with its critic).

    Raises
    ------
    NotFound, Unsupported, CorruptFile, BadWeights : see each message.
    """
    entry = zoo_entry(model)
    if entry is not None:
        return _from_folder(str(model), entry.folder, loading)
    if isinstance(model, Subject):
        return model
    if isinstance(model, Denoiser):
        return loading.subject(type(model).__name__, model)
    if isinstance(model, SampleBank):
        return Subject.of_samples("samples", model)
    if isinstance(model, Generator):
        return loading.gan(type(model).__name__, model)
    if not isinstance(model, str | Path):
        from vestige.models.adapters.diffusers import from_pipeline

        denoiser = from_pipeline(model, null_condition=loading.null_condition)
        return loading.subject(type(model).__name__, denoiser)
    path = Path(model)
    if not path.exists():
        raise NotFound(
            f"There is no model at {path}.",
            expected=f"a diffusers or GAN folder, a folder or .npz of generated images, or one of {', '.join(MODELS)}.",
            remedy="check the path; `vestige demo` shows the whole job on a shipped model.",
        )
    if path.is_dir() and _looks_like_model(path):
        return _from_folder(path.name, path, loading)
    images, _ = load_images(path)
    return Subject.of_samples(path.name, SampleBank(images.pixels))


def _looks_like_model(path: Path) -> bool:
    markers = ("model_index.json", "gan.json", "config.json", "unet", "*.safetensors", "*.bin", "*.pt", "*.ckpt")
    return any(any(path.glob(marker)) for marker in markers)


def _from_folder(name: str, folder: Path, loading: Loading) -> Subject:
    from vestige.models.adapters.diffusers import load_folder
    from vestige.models.adapters.gan import is_gan_folder, load_gan
    from vestige.models.adapters.text_to_image_load import is_text_to_image

    if is_text_to_image(folder):
        raise Unsupported(
            f"{folder} is a text-to-image model, which is asked with prompts.",
            expected="a model that draws without them.",
            remedy="pass --prompts FILE to `vestige audit`, or --concept WORD to `vestige erase`.",
        )
    # Hide the GPU with CUDA_VISIBLE_DEVICES="" to stay on the CPU.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if is_gan_folder(folder):
        gan = load_gan(folder, batch_size=loading.batch_size, device=device)
        return loading.gan(name, gan.generator, gan.critic, folder)
    denoiser = load_folder(folder, null_condition=loading.null_condition)
    denoiser.module.to(device)
    return loading.subject(name, denoiser, folder)


def resolve_data(data: DataLike, *, skip_corrupt: bool = False) -> tuple[ImageSet, tuple[str, ...]]:
    """Images and the names of skipped files, from a path, ``ZOO:train``, ``ZOO:held-out`` or an ImageSet.

    Raises
    ------
    NotFound, EmptySet, CorruptFile, ShapeMismatch, InvalidInput : see :func:`vestige.data.load.load_images`.
    """
    if isinstance(data, ImageSet):
        return data, ()
    name, _, part = str(data).partition(":")
    if name in MODELS and part:
        entry = zoo_model(name)
        if part not in ("train", "held-out"):
            raise InvalidInput(
                f"'{data}' is no data set of the zoo.",
                expected=f"{name}:train or {name}:held-out.",
                remedy="choose one of them.",
            )
        return (entry.training_data() if part == "train" else entry.held_out()), ()
    return load_images(Path(data), skip_corrupt=skip_corrupt)


def both_sides(
    entry: ZooModel | None, data: DataLike | None, non_members: DataLike | None
) -> tuple[DataLike, DataLike | None]:
    """The training data and the non-members as given; a zoo model without data brings its own.

    Raises
    ------
    InvalidInput : there is no training data.
    """
    if data is None and entry is not None:
        return f"{entry.name}:train", non_members or f"{entry.name}:held-out"
    if data is None:
        raise InvalidInput(
            "No training data was given.",
            expected="the images that the model was trained on, every copy included.",
            remedy="pass --data with a folder of images or an .npz file.",
        )
    return data, non_members


def resolve_judges(model: ModelLike) -> tuple[FeatureExtractor, Classifier | None]:
    """The features that quality is measured in, and a class judge where the zoo has one."""
    entry = zoo_entry(model)
    if entry is None:
        return BlockMeans(), None
    judge = entry.classifier()
    return judge, judge


def check_suits(images: ImageSet, subject: Subject) -> None:
    """Raise ShapeMismatch or InvalidInput unless the images have the model's size and classes."""
    check_fits(images, subject.shape, subject.name)
    classes = subject.classes
    if images.labels is None or not classes:
        return
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= classes:
        raise InvalidInput(
            f"{images.source} has labels from {low} to {high}, and {subject.name} knows {classes} classes.",
            expected=f"labels in 0..{classes - 1}, numbered as in training.",
            remedy="check that the sub-folders are the model's classes, or store `labels` in an npz.",
        )


def describe(data: DataLike | None) -> str | None:
    """How a record names a data set."""
    if data is None:
        return None
    return data.source if isinstance(data, ImageSet) else str(data)
