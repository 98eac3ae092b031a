"""A StyleGAN2 in one safetensors file: weights, and the sizes as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.network import StyleGan2
from vestige.models.network import settle
from vestige.store.write import write_bytes

CONFIGURATION, ORIGIN = "stylegan2.json", "origin"
"""Keys of the header: the form, and a sentence on where the weights come from."""


@dataclass(frozen=True, eq=False)
class StyleGan2Weights:
    """A generator's form and tensors, by the names of ``StyleGan2(form).state_dict()``.

    Raises
    ------
    BadWeights : a tensor is absent, unknown, of another shape or not finite; the first few are named.
    """

    form: StyleGan2Form
    tensors: Table[str, Tensor]

    def __post_init__(self) -> None:
        expected = shapes(self.form)
        found = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        wrong = [f"{name} is missing" for name in expected if name not in found]
        wrong += [f"{name} is unknown" for name in found if name not in expected]
        wrong += [
            f"{name} is {list(found[name])} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ]
        wrong += [f"{name} is not finite" for name, tensor in self.tensors.items() if not _finite(tensor)]
        if wrong:
            raise BadWeights(
                f"The weights do not fit a StyleGAN2 of {self.form.resolution} pixels: {'; '.join(wrong[:5])}"
                f"{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}.",
                expected="every tensor that the sizes ask for, in its shape, with finite numbers.",
                remedy="see that the file is a whole StyleGAN2 of the skip architecture.",
            )

    def network(self) -> StyleGan2:
        """The generator, in float32 and evaluation mode, its weights not trained."""
        with torch.device("meta"):
            network = StyleGan2(self.form)
        network.load_state_dict({name: tensor.float() for name, tensor in self.tensors.items()}, assign=True)
        settle(network, "generator")
        return network.requires_grad_(False)

    def save(self, path: str | Path, *, origin: str) -> None:
        """Write one safetensors file, whole or not at all.

        Raises
        ------
        InvalidInput : the name does not end in .safetensors. StorageFailed : it cannot be written.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InvalidInput(f"The output is called {path.name}.", expected="OUT.safetensors.", remedy="rename it.")
        header = {CONFIGURATION: json.dumps(self.form.key(), sort_keys=True), ORIGIN: origin}
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.tensors.items()}
        write_bytes(path, save(tensors, header))


def shapes(form: StyleGan2Form) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a form, by name; nothing of their size is allocated."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in StyleGan2(form).state_dict().items()}


def _finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def read_stylegan2(path: str | Path) -> StyleGan2Weights:
    """Read what :meth:`StyleGan2Weights.save` and ``vestige convert`` write.

    Raises
    ------
    NotFound : there is no such file. CorruptFile : it is no safetensors file, or its header holds no configuration.
    InvalidInput : a size is not sound. BadWeights : the tensors are not those of the configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", expected="a .safetensors file.", remedy="check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            form = StyleGan2Form.read(json.loads(header.get(CONFIGURATION, "null")))
            return StyleGan2Weights(form, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CorruptFile(
            f"{path} cannot be read ({type(error).__name__}).",
            expected="a safetensors file of `vestige convert`.",
            remedy="convert the network again.",
        ) from error


def load_stylegan2(path: str | Path) -> StyleGan2:
    """The generator of a file; raises what :func:`read_stylegan2` raises."""
    return read_stylegan2(path).network()
