"""``vestige convert``: somebody's StyleGAN2 as safetensors, without executing the file that it came in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vestige.digest import digest_file, digest_tensors
from vestige.errors import AlreadyExists, Unsupported
from vestige.models.adapters.stylegan2.files import StyleGan2Weights
from vestige.models.adapters.stylegan2.official import PERSISTENT, official_weights
from vestige.models.adapters.stylegan2.ported import ported_weights
from vestige.models.unpickle.archive import TENSORS, open_archive
from vestige.models.unpickle.machine import Expected

EXPECTED = Expected(
    calls=TENSORS
    | {PERSISTENT, "argparse.Namespace", "_codecs.encode", "builtins.set", "builtins.frozenset", "__builtin__.set"}
    | {"numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
    | {"torch.Size", "torch.device", "torch.float32", "torch.float16"},
    mappings=frozenset({"collections.OrderedDict", "dnnlib.util.EasyDict"}),
)
"""Every global that a file may name: those that weights and the settings beside them are made of."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """What was read from where, and written to where.

    Parameters
    ----------
    weights : the generator.
    source, out : the files.
    source_digest : SHA-256 of the source.
    digest : digest of the tensors that were written.
    """

    weights: StyleGan2Weights
    source: Path
    out: Path
    source_digest: str
    digest: str


def convert(source: str | Path, out: str | Path, *, overwrite: bool = False) -> Conversion:
    """Read a pickle of StyleGAN2-ADA for PyTorch, or a ``.pt`` of its PyTorch port, and write safetensors.

    The averaged generator (``G_ema``, ``g_ema``) is taken. The file is followed as data: nothing in it is imported,
    called or executed.

    Raises
    ------
    NotFound, InvalidInput, AlreadyExists : a path is wrong.
    Unsupported : the file names a global that no weights need, or holds another kind of network.
    CorruptFile, BadWeights : it is damaged, or its tensors are not those of the sizes that it declares.
    """
    source, out = Path(source), Path(out)
    if out.exists() and not overwrite:
        raise AlreadyExists(f"{out} exists.", expected="a new file.", remedy="choose another name or pass --overwrite.")
    archive = open_archive(source, EXPECTED)
    weights = official_weights(archive) or ported_weights(archive)
    if weights is None:
        raise Unsupported(
            f"{source.name} holds no generator under G_ema or g_ema.",
            expected="a pickle of StyleGAN2-ADA for PyTorch, or a .pt file of the PyTorch port.",
            remedy="for a StyleGAN2 of TensorFlow, convert it first with the tools of its own project.",
        )
    digest = digest_file(source)
    weights.save(out, origin=f"converted from {source.name}, SHA-256 {digest}")
    return Conversion(weights, source, out, digest, digest_tensors(weights.tensors))
