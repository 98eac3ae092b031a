"""Text-to-image pipelines of diffusers: prompts to embeddings, latents to predictions, latents to pictures.

Read: the layout of Stable Diffusion 1.x and 2.x (one CLIP encoder, ``UNet2DConditionModel``), of SDXL (two encoders)
and of Stable Diffusion 3 (a transformer that predicts flow), each with an ``AutoencoderKL``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from vestige.data.images import to_float, to_uint8
from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput, Unsupported
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.diffusers import schedule_and_prediction
from vestige.models.adapters.text_to_image_network import PooledTransformer, PooledUNet, readers, widths
from vestige.models.adapters.text_to_image_prompts import ClipsAndT5, OneClip, PromptEncoder, TextTower, TwoClips
from vestige.models.denoiser import Denoiser
from vestige.models.guidance import Guided
from vestige.models.sampler import DDIM, Sampler
from vestige.models.schedule import DiscreteTable
from vestige.randomness import Stream, normal

Pixels = npt.NDArray[np.uint8]
Latents = Float[Tensor, "n channels height width"]

_T5_TOKENS = 256
"""As many as diffusers asks T5 for."""

NOTE = "vestige"
"""Sub-folder in which a model that carries increments keeps what belongs to them."""

_NOT_COPIED = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl", "*.py", "*.msgpack")
"""Files that hold code, pickles or the same weights once more."""


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn from prompts: the sampler, the scale of guidance, how many at once."""

    sampler: Sampler = DDIM(steps=25, clip=False)  # noqa: RUF009 (frozen)
    guidance: float = 7.5
    batch_size: int = 32


class TextToImage:
    """A text-to-image pipeline.

    Parameters
    ----------
    pipeline : an object of diffusers with ``unet`` or ``transformer``, ``vae``, ``scheduler``, tokenizers and text
        encoders. Its parts are put into evaluation mode and frozen.
    folder : where it was read from, if it was; everything but the network is copied from there on saving.
    prompts : its tokenizers and text encoders, if they are at hand already.

    Attributes
    ----------
    network : what denoises latents, the one part that is ever changed.
    shape : (channels, height, width) of a latent.

    Raises
    ------
    Unsupported : another layout, or attention that is fused or quantised.
    InvalidInput : the text encoder's width is not the network's.
    BadWeights : a weight of the network is NaN or infinite.
    """

    def __init__(self, pipeline: Any, folder: Path | None = None, *, prompts: PromptEncoder | None = None) -> None:
        self.pipeline, self.folder = pipeline, folder
        self.network = _network(pipeline)
        self.vae = _vae(pipeline)
        readers(self.network)
        self.prompts = prompts or _prompt_encoder(pipeline, self.network)
        self.shape = _latent_shape(self.network)
        self._denoiser = self._unconditional()
        self._frozen: str | None = None

    def _unconditional(self) -> ConditionedDenoiser:
        schedule, prediction = schedule_and_prediction(self.pipeline.scheduler)
        empty = self.prompts.embeddings([""])
        wanted = widths(self.network)
        if wanted != {empty.shape[-1]}:
            raise InvalidInput(
                f"The text encoder's embeddings are {empty.shape[-1]} wide.",
                expected=f"{', '.join(map(str, sorted(wanted)))}, which the network's attention reads.",
                remedy="take text encoder and network from the same pipeline.",
            )
        steps = float(self.pipeline.scheduler.config.num_train_timesteps)
        return ConditionedDenoiser(
            self._called(),
            schedule,
            prediction,
            self.shape,
            empty,
            identity=type(self.network).__name__,
            null_condition=0,
            time_scale=None if isinstance(schedule, DiscreteTable) else steps,
        )

    def _called(self) -> nn.Module:
        if isinstance(self.prompts, TwoClips):
            factor = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
            size = (self.shape[1] * factor, self.shape[2] * factor)
            return PooledUNet(self.network, self.prompts, size)
        if isinstance(self.prompts, ClipsAndT5):
            return PooledTransformer(self.network, self.prompts)
        return self.network

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self._denoiser.device

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.network

    def readers(self) -> dict[str, nn.Linear]:
        """The network's layers that read the text, see :func:`text_to_image_network.readers`."""
        return readers(self.network)

    @property
    def evaluations(self) -> int:
        """Evaluations of the network through :meth:`sample`; denoisers count their own."""
        return self._denoiser.evaluations

    @property
    def digest(self) -> str:
        """Digest of all weights, vocabulary, schedule and prediction; what is frozen is digested once."""
        if self._frozen is None:
            schedule, prediction = schedule_and_prediction(self.pipeline.scheduler)
            settings = {"prediction": prediction.value, **schedule.key()}
            vae = digest_tensors(self.vae.state_dict())
            self._frozen = digest_json({"prompts": self.prompts.digest, "vae": vae, **settings})
        return digest_json({"network": digest_tensors(self.network.state_dict()), "frozen": self._frozen})

    def with_module(self, module: nn.Module) -> TextToImage:
        """The same pipeline around another network of the same architecture."""
        parts = dict(self.pipeline.components)
        parts["transformer" if "transformer" in parts else "unet"] = module
        other = TextToImage(_rebuilt(self.pipeline, parts), self.folder, prompts=self.prompts)
        other._frozen = self._frozen
        return other

    def embeddings(self, prompts: Sequence[str]) -> Float[Tensor, "n rows width"]:
        """Embeddings of prompts, in the order given; "" is the empty one."""
        return self.prompts.embeddings(prompts)

    def tokens(self, prompts: Sequence[str]) -> Float[Tensor, "n tokens width"]:
        """Those rows of the embeddings that the network reads linearly, without a pooled vector."""
        return self.embeddings(prompts)[:, : self.prompts.tokens]

    def denoiser(self, prompts: Sequence[str] = ()) -> ConditionedDenoiser:
        """A denoiser of latents: condition i is prompt i, the null condition is the empty prompt.

        Its predictions are the network's, with a counter of their own. ``predict_embedded`` takes other embeddings,
        packed as :meth:`embeddings` packs them.
        """
        return self._denoiser.with_table(self.embeddings([*prompts, ""]), null_condition=len(prompts))

    def starts(self, rows: Sequence[int], seed: int) -> Latents:
        """Standard normal latents; row r of a seed is always the same."""
        return torch.from_numpy(normal(seed, Stream.SAMPLE, rows, self.shape)).to(self.device)

    def latents(
        self, prompts: Sequence[str], rows: Sequence[int], seed: int, drawing: Drawing | None = None
    ) -> Latents:
        """Clean latents, one a prompt, whose noise belongs to ``(seed, row)``.

        Raises
        ------
        InvalidInput : another number of rows than of prompts.
        """
        if len(prompts) != len(rows):
            raise InvalidInput(
                f"{len(prompts)} prompts and {len(rows)} rows were given.",
                expected="one row a prompt.",
                remedy="pass range(len(prompts)), or rows of your own.",
            )
        how, texts = drawing or Drawing(), list(dict.fromkeys(prompts))
        inner = self.denoiser(texts)
        denoiser: Denoiser = inner if how.guidance == 1 else Guided(inner, how.guidance)
        place = {text: i for i, text in enumerate(texts)}
        found = [torch.zeros(0, *self.shape, device=self.device)]
        for first in range(0, len(prompts), how.batch_size):
            part = list(rows[first : first + how.batch_size])
            asked = torch.tensor([place[text] for text in prompts[first : first + how.batch_size]], device=self.device)

            def fresh(draw: int, part: list[int] = part) -> Tensor:
                noise = normal(seed, Stream.SAMPLE if draw == 0 else Stream.ANCESTRAL, part, self.shape, draw)
                return torch.from_numpy(noise).to(self.device)

            found.append(how.sampler.solve(denoiser, fresh(0), asked, fresh))
        self._denoiser.evaluations += inner.evaluations
        return torch.cat(found)

    def sample(self, prompts: Sequence[str], rows: Sequence[int], seed: int, drawing: Drawing | None = None) -> Pixels:
        """Pictures uint8 [n, channels, height, width], see :meth:`latents`."""
        return self.decode(self.latents(prompts, rows, seed, drawing))

    @torch.no_grad()
    def decode(self, latents: Latents) -> Pixels:
        """Pictures uint8 of clean latents, in batches of 32."""
        config = self.vae.config
        scaled = latents / config["scaling_factor"] + (config.get("shift_factor") or 0.0)
        parts = [to_uint8(self._vae_of(part)) for part in scaled.split(32)]
        return np.concatenate(parts)

    def _vae_of(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents.to(self.vae.dtype)).sample

    @torch.no_grad()
    def encode(self, pixels: Pixels) -> Latents:
        """Latents of pictures uint8: the mean that the VAE gives them, scaled as the network wants it."""
        config, device = self.vae.config, self.device
        parts = [self.vae.encode(to_float(pixels[i : i + 32]).to(device)).latent_dist.mean for i in _starts(pixels)]
        return (torch.cat(parts) - (config.get("shift_factor") or 0.0)) * config["scaling_factor"]

    def save(self, folder: Path) -> None:
        """Write a pipeline folder that plain diffusers opens: the network anew, all else as it was."""
        part = "transformer" if "transformer" in self.pipeline.components else "unet"
        if self.folder is None:
            self.pipeline.save_pretrained(folder, safe_serialization=True)
            return
        left_out = shutil.ignore_patterns(*_NOT_COPIED)
        skipped = {str(self.folder / part), str(self.folder / NOTE)}

        def ignored(where: str, names: list[str]) -> set[str]:
            inside = {name for name in names if str(Path(where) / name) in skipped}
            return inside | set(left_out(where, names))

        shutil.copytree(self.folder, folder, ignore=ignored, dirs_exist_ok=True)
        self.network.save_pretrained(folder / part, safe_serialization=True)

    def check_concept(self, concept: str) -> None:
        """Raise InvalidInput unless the concept is a string that the (first) tokenizer can say."""
        self.prompts.tower.check(concept)


def _starts(pixels: Pixels) -> range:
    return range(0, len(pixels), 32)


def _rebuilt(pipeline: Any, parts: dict[str, Any]) -> Any:
    kind: Any = type(pipeline)
    config = dict(getattr(pipeline, "config", {}))
    more = {key: config[key] for key in ("requires_safety_checker", "force_zeros_for_empty_prompt") if key in config}
    return kind(**parts, **more)


def _network(pipeline: Any) -> Any:
    network: Any = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    name = type(network).__name__
    if name not in ("UNet2DConditionModel", "SD3Transformer2DModel"):
        raise Unsupported(
            f"A {type(pipeline).__name__} denoises with {'nothing' if network is None else 'a ' + name}.",
            expected="a UNet2DConditionModel or an SD3Transformer2DModel.",
            remedy="use a Stable Diffusion 1.x, 2.x, XL or 3 pipeline.",
        )
    config = dict(network.config)
    more = [k for k in ("class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim") if config.get(k)]
    if more or config["in_channels"] != config["out_channels"]:
        found = f"{more[0]} {config[more[0]]!r}" if more else f"{config['in_channels']} channels in"
        raise Unsupported(
            f"The network has {found}.",
            expected="text as its only condition, and an answer of the shape of its input.",
            remedy="use a plain text-to-image pipeline, without inpainting, distilled guidance or class labels.",
        )
    return network.eval().requires_grad_(False)


def _vae(pipeline: Any) -> Any:
    vae = getattr(pipeline, "vae", None)
    if not isinstance(vae, AutoencoderKL):
        raise Unsupported(
            f"The pipeline's VAE is {'missing' if vae is None else 'a ' + type(vae).__name__}.",
            expected="an AutoencoderKL.",
            remedy="save the pipeline with the VAE that it was trained with.",
        )
    return vae.eval().requires_grad_(False)


def _latent_shape(network: Any) -> tuple[int, int, int]:
    size = network.config.get("sample_size")
    if size is None:
        raise InvalidInput(
            "The network's configuration has no sample_size.",
            expected="the side of its latents.",
            remedy='add "sample_size" to its config.json.',
        )
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return int(network.config["in_channels"]), height, width


def _prompt_encoder(pipeline: Any, network: Any) -> PromptEncoder:
    towers: list[TextTower] = []
    for suffix in ("", "_2", "_3"):
        tokenizer, encoder = (getattr(pipeline, part + suffix, None) for part in ("tokenizer", "text_encoder"))
        if tokenizer is not None and encoder is not None:
            length = _T5_TOKENS if suffix == "_3" else int(tokenizer.model_max_length)
            towers.append(TextTower(tokenizer, encoder, length))
    kinds = [type(tower.encoder).__name__ for tower in towers]
    clip, projected = "CLIPTextModel", "CLIPTextModelWithProjection"
    if hasattr(pipeline, "transformer") and kinds[:2] == [projected] * 2 and kinds[2:] in ([], ["T5EncoderModel"]):
        width, pooled = int(network.config["joint_attention_dim"]), int(network.config["pooled_projection_dim"])
        return ClipsAndT5(towers, pooled, width=width, t5_tokens=_T5_TOKENS)
    if network.config.get("addition_embed_type") == "text_time" and kinds == [clip, projected]:
        pooled = int(towers[1].encoder.config.projection_dim)
        zero = bool(pipeline.config.get("force_zeros_for_empty_prompt", True))
        return TwoClips(towers, pooled, zero_empty=zero)
    if kinds == [clip] and not network.config.get("addition_embed_type"):
        return OneClip(towers)
    raise Unsupported(
        f"The pipeline's text encoders are {', '.join(kinds) or 'missing'}.",
        expected=f"{clip}; {clip} and {projected} (SDXL); or {projected} twice and T5EncoderModel (SD 3).",
        remedy="use a Stable Diffusion 1.x, 2.x, XL or 3 pipeline with all of its text encoders.",
    )
