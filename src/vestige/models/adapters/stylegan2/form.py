"""The shape of a StyleGAN2 generator."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from vestige.errors import CorruptFile, InvalidInput

_LARGEST_SIDE, _WIDEST, _DEEPEST = 4096, 8192, 64


@dataclass(frozen=True)
class StyleGan2Form:
    """Sizes of mapping and synthesis network, skip architecture (Karras et al. 2020, arXiv 1912.04958, figure 7b).

    Parameters
    ----------
    channels : channels of the stages, which draw at 4, 8, 16 … pixels; their number fixes the resolution.
    latent, style : dimensions of z and w, 1 to 8,192.
    classes : number of class labels, embedded beside z; 0 for an unconditional generator.
    mapping_layers : fully connected layers from z to w, 1 to 64.
    mapping_rate : learning-rate multiplier of the mapping network (0.01 in the paper): its weights are stored
        divided by it.
    image_channels : channels of an image: 1 or 3.
    clamp : activations are cut at plus and minus this, as networks trained in half precision need; None to leave them.

    Raises
    ------
    InvalidInput : a size is outside what is stated here, or the images would be larger than 4,096 pixels.
    """

    channels: tuple[int, ...]
    latent: int = 512
    style: int = 512
    classes: int = 0
    mapping_layers: int = 8
    mapping_rate: float = 0.01
    image_channels: int = 3
    clamp: float | None = None

    def __post_init__(self) -> None:
        widths = (self.latent, self.style, *self.channels)
        sound = (
            1 <= len(self.channels) <= _LARGEST_SIDE.bit_length() - 2
            and all(1 <= width <= _WIDEST for width in widths)
            and 0 <= self.classes <= _WIDEST
            and 1 <= self.mapping_layers <= _DEEPEST
            and 0 < self.mapping_rate < float("inf")
            and self.image_channels in (1, 3)
            and (self.clamp is None or 0 < self.clamp < float("inf"))
        )
        if not sound:
            raise InvalidInput(
                f"The sizes of a StyleGAN2 are {asdict(self)}.",
                expected=f"1 to {_WIDEST:,} channels, up to 11 stages, up to {_DEEPEST} mapping layers, grey or RGB.",
                remedy="correct the sizes, or save the network again if they come from a file.",
            )

    @property
    def resolution(self) -> int:
        """Side of an image, in pixels."""
        return 4 << (len(self.channels) - 1)

    @property
    def styles(self) -> int:
        """Number of styles that an image takes: two a stage."""
        return 2 * len(self.channels)

    @property
    def noise_sides(self) -> tuple[int, ...]:
        """Sides of the noise inputs, in drawing order: one at 4 pixels, then two a stage."""
        return (4, *(4 << stage for stage in range(1, len(self.channels)) for _ in range(2)))

    def key(self) -> dict[str, Any]:
        """Plain values, as written into a file."""
        return {**asdict(self), "channels": list(self.channels)}

    @staticmethod
    def read(values: object) -> StyleGan2Form:
        """The opposite of :meth:`key`, of values from anywhere.

        Raises
        ------
        CorruptFile : fields are absent, unknown or of another type. InvalidInput : a size is not sound.
        """
        known = {field.name for field in fields(StyleGan2Form)}
        given = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
        whole = known - {"channels", "mapping_rate", "clamp"}
        if (
            set(given) != known
            or not isinstance(given["channels"], list)
            or not all(type(item) is int for item in [*given["channels"], *(given[name] for name in whole)])
            or type(given["mapping_rate"]) not in (int, float)
            or type(given["clamp"]) not in (int, float, type(None))
        ):
            raise CorruptFile(
                "The configuration of the StyleGAN2 cannot be read.",
                expected=f"the fields {', '.join(sorted(known))}.",
                remedy="convert the network again with `vestige convert`.",
            )
        sizes: dict[str, Any] = {**given, "channels": tuple(given["channels"])}
        return StyleGan2Form(**sizes)


def config_f(resolution: int, *, base: int = 32768, largest: int = 512) -> tuple[int, ...]:
    """Channels of the paper's large network: ``min(base / side, largest)`` at every side.

    Raises
    ------
    InvalidInput : the resolution is no power of two from 4 to 4,096, or a width would not be positive.
    """
    if not 4 <= resolution <= _LARGEST_SIDE or resolution & (resolution - 1) or min(base // resolution, largest) < 1:
        raise InvalidInput(
            f"The resolution is {resolution}, of base {base} and at most {largest} channels.",
            expected=f"a power of two from 4 to {_LARGEST_SIDE:,}, a base of at least the resolution, some channels.",
            remedy="correct the sizes.",
        )
    return tuple(min(base // (4 << stage), largest) for stage in range(resolution.bit_length() - 2))
