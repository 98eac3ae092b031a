"""The denoising network of a text-to-image pipeline: how it is called, where it reads the text, what it attends to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeGuard

from diffusers.models.attention_processor import Attention, AttnProcessor
from jaxtyping import Float
from torch import Tensor, nn

from vestige.errors import Unsupported
from vestige.models.adapters.text_to_image_prompts import PromptEncoder

Maps = dict[str, Float[Tensor, "n heads pixels tokens"]]


class PooledUNet(nn.Module):
    """An SDXL UNet that takes packed embeddings; ``size`` is the picture's (height, width) that it is told."""

    def __init__(self, unet: nn.Module, prompts: PromptEncoder, size: tuple[int, int]) -> None:
        super().__init__()
        self.unet = unet
        self._prompts, self._size = prompts, size

    def forward(self, x_t: Tensor, step: Tensor, rows: Tensor) -> Tensor:
        """The prediction under packed embeddings."""
        tokens, pooled = self._prompts.unpacked(rows)
        height, width = self._size
        told = x_t.new_tensor([height, width, 0, 0, height, width]).expand(len(x_t), -1)
        more = {"text_embeds": pooled, "time_ids": told}
        return self.unet(x_t, step, encoder_hidden_states=tokens, added_cond_kwargs=more).sample


class PooledTransformer(nn.Module):
    """A Stable Diffusion 3 transformer that takes packed embeddings."""

    def __init__(self, transformer: nn.Module, prompts: PromptEncoder) -> None:
        super().__init__()
        self.transformer = transformer
        self._prompts = prompts

    def forward(self, x_t: Tensor, step: Tensor, rows: Tensor) -> Tensor:
        """The prediction under packed embeddings."""
        tokens, pooled = self._prompts.unpacked(rows)
        return self.transformer(
            hidden_states=x_t, timestep=step, encoder_hidden_states=tokens, pooled_projections=pooled
        ).sample


def readers(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers through which alone a network reads the tokens' embeddings, by name.

    Key and value maps of every cross-attention; for a transformer with joint attention, whose text stream goes
    through all of its layers, the one map at its entrance.

    Raises
    ------
    Unsupported : attention is fused or quantised, or there is no such layer.
    """
    found: dict[str, nn.Linear] = {}
    entrance = getattr(network, "context_embedder", None)
    if entrance is not None:
        found["context_embedder"] = _plain("context_embedder", entrance)
    for name, attention in cross_attentions(network).items():
        if getattr(attention, "fused_projections", False):
            raise Unsupported(
                f"The attention {name} is fused: keys and values come from one matrix.",
                expected="separate key and value maps.",
                remedy="call unfuse_qkv_projections() before saving the pipeline.",
            )
        found |= {f"{name}.{part}": _plain(f"{name}.{part}", getattr(attention, part)) for part in ("to_k", "to_v")}
    if not found:
        raise Unsupported(
            f"The {type(network).__name__} has no layer that reads the text linearly.",
            expected="cross-attention with key and value maps, or an entrance for the text.",
            remedy="use a Stable Diffusion 1.x, 2.x, XL or 3 pipeline.",
        )
    return found


def cross_attentions(network: nn.Module) -> dict[str, Attention]:
    """Attention layers from pixels to text, by name, in the network's order; none for joint attention."""
    return {name: part for name, part in network.named_modules() if _cross(part)}


def _cross(part: nn.Module) -> TypeGuard[Attention]:
    return isinstance(part, Attention) and bool(part.is_cross_attention)


def _plain(name: str, layer: Any) -> nn.Linear:
    if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
        raise Unsupported(
            f"The layer {name} is a {type(layer).__name__}.",
            expected="a plain torch Linear with floating-point weights.",
            remedy="load the pipeline without quantisation and without adapters.",
        )
    return layer


@contextmanager
def attention_maps(network: nn.Module) -> Generator[Maps]:
    """Within it, every call of the network leaves its cross-attention maps here, by layer; gradients flow.

    Maps are probabilities [n, heads, pixels, tokens] that sum to 1 over tokens, of the latest call.

    Raises
    ------
    Unsupported : the network has no cross-attention.
    """
    layers = cross_attentions(network)
    if not layers:
        raise Unsupported(
            f"The {type(network).__name__} has no attention from pixels to text.",
            expected="a UNet with cross-attention.",
            remedy="use a Stable Diffusion 1.x, 2.x or XL pipeline.",
        )
    maps: Maps = {}
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.set_processor(AttnProcessor())
            vars(layer)["get_attention_scores"] = _recorder(layer, name, maps)
        yield maps
    finally:
        for name, layer in layers.items():
            vars(layer).pop("get_attention_scores", None)
            layer.set_processor(before[name])


def _recorder(layer: Attention, name: str, maps: Maps) -> Any:
    compute = layer.get_attention_scores

    def scores(query: Tensor, key: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        found = compute(query, key, attention_mask)
        maps[name] = found.unflatten(0, (-1, layer.heads))
        return found

    return scores


def quantised(config: dict[str, Any]) -> bool:
    """Whether a part's configuration says that its weights are quantised."""
    return bool(config.get("quantization_config"))


def widths(network: nn.Module) -> set[int]:
    """How wide the embeddings must be that the network reads."""
    return {layer.in_features for layer in readers(network).values()}
