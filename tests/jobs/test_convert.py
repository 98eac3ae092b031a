"""Conversion of files in the formats of others, which the tests write themselves."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from vestige.digest import digest_file
from vestige.errors import AlreadyExists, BadWeights, CorruptFile, Unsupported, VestigeError
from vestige.jobs.convert import convert
from vestige.models.adapters.stylegan2.files import load_stylegan2, read_stylegan2
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.network import StyleGan2

FORM = StyleGan2Form(channels=(4, 4, 2), latent=5, style=6, mapping_layers=2, clamp=256.0)
TAPS = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


def rebuild(meta: dict[str, Any]) -> object:
    """What the format's own code does with a file: execute the source that it holds."""
    exec(meta["module_src"])
    return meta


class EasyDict(dict):
    pass


@pytest.fixture(autouse=True)
def format_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that a pickle of StyleGAN2-ADA refers to, so that one can be written here."""
    for function, name, module in (
        (rebuild, "_reconstruct_persistent_obj", "torch_utils.persistence"),
        (EasyDict, "EasyDict", "dnnlib.util"),
    ):
        package = module.partition(".")[0]
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        function.__module__, function.__qualname__, function.__name__ = module, name, name
        setattr(sys.modules[module], name, function)


SOURCE = "raise SystemExit('the source in the file was executed')"


class Persistent(nn.Module):
    """A module that pickles as the official ones do: name of the class, source, state."""

    def __init__(self, kind: str, **attributes: Any) -> None:
        super().__init__()
        self.__dict__.update(attributes)
        self.kind = kind

    def __reduce__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name != "kind"}
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.kind, "state": state}
        return rebuild, (meta,)


def part(kind: str, parameters: dict[str, Tensor], buffers: dict[str, Tensor] | None = None, **more: Any) -> Persistent:
    made = Persistent(kind, **{name: value for name, value in more.items() if not isinstance(value, Persistent)})
    for name, value in parameters.items():
        made.register_parameter(name, nn.Parameter(value))
    for name, value in (buffers or {}).items():
        made.register_buffer(name, value)
    for name, value in more.items():
        if isinstance(value, Persistent):
            made.add_module(name, value)
    return made


def dense(inputs: int, outputs: int, rate: float = 1.0) -> Persistent:
    weights = {"weight": torch.randn(outputs, inputs) / rate, "bias": torch.randn(outputs)}
    return part(
        "FullyConnectedLayer", weights, activation="lrelu" if rate < 1 else "linear",
        weight_gain=rate / np.sqrt(inputs), bias_gain=rate,
    )  # fmt: skip


def layer(inputs: int, outputs: int, style: int, side: int) -> Persistent:
    return part(
        "SynthesisLayer",
        {
            "weight": torch.randn(outputs, inputs, 3, 3),
            "bias": torch.randn(outputs),
            "noise_strength": torch.randn([]),
        },
        {"noise_const": torch.randn(side, side), "resample_filter": TAPS},
        affine=dense(style, inputs), activation="lrelu", use_noise=True, conv_clamp=FORM.clamp, act_gain=np.sqrt(2),
    )  # fmt: skip


def generator(form: StyleGan2Form = FORM, **changes: Any) -> Persistent:
    """A generator as StyleGAN2-ADA keeps it, with random weights."""
    torch.manual_seed(0)
    blocks: dict[str, Persistent] = {}
    for index, width in enumerate(form.channels):
        side, before = 4 << index, form.channels[max(0, index - 1)]
        picture = {"weight": torch.randn(form.image_channels, width, 1, 1), "bias": torch.randn(form.image_channels)}
        inside: dict[str, Any] = {"conv1": layer(width, width, form.style, side)}
        inside["torgb"] = part("ToRGBLayer", picture, affine=dense(form.style, width), conv_clamp=form.clamp)
        if index:
            inside["conv0"] = layer(before, width, form.style, side)
        first = {} if index else {"const": torch.randn(width, 4, 4)}
        filters = {"resample_filter": TAPS}
        blocks[f"b{side}"] = part("SynthesisBlock", first, filters, **inside, architecture="skip", use_fp16=False)
    rate, embedded = form.mapping_rate, form.style if form.classes else 0
    inputs = [form.latent + embedded] + [form.style] * (form.mapping_layers - 1)
    fully = {f"fc{i}": dense(size, form.style, rate) for i, size in enumerate(inputs)}
    embed = {"embed": dense(form.classes, form.style)} if form.classes else {}
    kwargs = EasyDict(
        z_dim=form.latent, c_dim=form.classes, w_dim=form.style, img_resolution=form.resolution,
        img_channels=form.image_channels, mapping_kwargs=EasyDict(num_layers=form.mapping_layers),
        synthesis_kwargs=EasyDict(channel_base=32, channel_max=4, num_fp16_res=4, conv_clamp=form.clamp),
    )  # fmt: skip
    kwargs |= changes
    return part(
        "Generator", {}, _init_args=(), _init_kwargs=kwargs,
        mapping=part("MappingNetwork", {}, {"w_avg": torch.randn(form.style)}, **fully, **embed, w_avg_beta=0.995),
        synthesis=part("SynthesisNetwork", {}, **blocks),
    )  # fmt: skip


def official(made: Persistent, protocol: int = 4, **more: Any) -> bytes:
    """A snapshot: three networks and the settings of their training."""
    held = {"G": made, "D": part("Discriminator", {"weight": torch.randn(2)}), "G_ema": made, "augment_pipe": None}
    settings = EasyDict(class_name="training.dataset.ImageFolderDataset", path="data.zip", resolution=16)
    return pickle.dumps({**held, "training_set_kwargs": settings, **more}, protocol)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def writer(content: bytes, name: str = "net.pkl") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return writer


def image(made: Persistent, form: StyleGan2Form, z: Tensor, label: int | None = None) -> Tensor:
    """What that generator draws, by the formulas with weights modulated one latent at a time."""
    of = {name: value.detach().double() for name, value in made.state_dict().items()}

    def fully(x: Tensor, name: str, rate: float = 1.0) -> Tensor:
        return x @ of[f"{name}.weight"].T * (rate / x.shape[1] ** 0.5) + of[f"{name}.bias"] * rate

    def unit(x: Tensor) -> Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def act(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * 0.2) * 2**0.5

    def blurred(x: Tensor, pads: tuple[int, int]) -> Tensor:
        x = nn.functional.pad(x.transpose(0, 1), pads * 2)
        return nn.functional.conv2d(x, 4 * TAPS.double()[None, None]).transpose(0, 1)

    def convolved(x: Tensor, name: str, up: bool, demodulate: bool = True) -> Tensor:
        weight = of[f"{name}.weight"] * fully(w, f"{name}.affine")[0, :, None, None]
        if not demodulate:
            return nn.functional.conv2d(x, weight / weight.shape[1] ** 0.5) + of[f"{name}.bias"][:, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            x = blurred(nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (1, 1))
        else:
            x = nn.functional.conv2d(x, weight, padding=1)
        return act(x + of[f"{name}.noise_const"] * of[f"{name}.noise_strength"] + of[f"{name}.bias"][:, None, None])

    w = unit(z.double())
    if label is not None:
        w = torch.cat([w, unit(fully(torch.eye(form.classes).double()[label, None], "mapping.embed"))], 1)
    for index in range(form.mapping_layers):
        w = act(fully(w, f"mapping.fc{index}", form.mapping_rate))
    x, drawn = of["synthesis.b4.const"][None], torch.zeros(1, form.image_channels, 2, 2, dtype=torch.float64)
    for index in range(len(form.channels)):
        block = f"synthesis.b{4 << index}"
        x = convolved(convolved(x, f"{block}.conv0", True) if index else x, f"{block}.conv1", False)
        spaced = torch.zeros(1, form.image_channels, x.shape[2], x.shape[3], dtype=torch.float64)
        spaced[:, :, ::2, ::2] = drawn
        drawn = blurred(spaced, (2, 1)) if index == 0 else torch.cat(
            [blurred(spaced[:, c : c + 1], (2, 1)) for c in range(form.image_channels)], 1
        )  # fmt: skip
        drawn = drawn + convolved(x, f"{block}.torgb", False, demodulate=False)
    return drawn


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_official_pickle_draws_the_same_images(protocol: int, write: Callable[..., Path], tmp_path: Path) -> None:
    made = generator()
    source = write(official(made, protocol))
    done = convert(source, tmp_path / "net.safetensors")
    assert done.weights.form == FORM
    assert done.source_digest == digest_file(source)
    network, z = load_stylegan2(done.out), torch.randn(2, 5)
    found = network(z)
    for row in range(2):
        expected = image(made, FORM, z[row : row + 1])
        torch.testing.assert_close(found[row : row + 1].double(), expected, rtol=0, atol=1e-5 * float(expected.max()))
    with safe_open(done.out, "pt") as file:
        assert file.metadata()["origin"] == f"converted from net.pkl, SHA-256 {done.source_digest}"
    assert convert(source, tmp_path / "again.safetensors").digest == done.digest
    with pytest.raises(SystemExit, match="executed"):  # what loading it in the usual way does
        pickle.loads(source.read_bytes())


def test_labels_grey_and_a_generator_alone(write: Callable[..., Path], tmp_path: Path) -> None:
    form = StyleGan2Form((4, 4, 2), latent=5, style=6, classes=3, mapping_layers=1, image_channels=1, clamp=256.0)
    made = generator(form)
    done = convert(write(pickle.dumps(made)), tmp_path / "net.safetensors")
    assert done.weights.form == form
    z = torch.randn(1, 5)
    found = load_stylegan2(done.out)(z, torch.tensor([2]))
    torch.testing.assert_close(found.double(), image(made, form, z, 2), rtol=1e-4, atol=1e-4)


def test_settings_beside_the_sizes_are_read_where_the_layers_keep_them(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    form = StyleGan2Form((4, 4, 2), latent=5, style=6, mapping_layers=2, mapping_rate=0.02, clamp=256.0)
    flat = {"channel_base": 32, "channel_max": 4, "num_fp16_res": 0, "fused_modconv_default": "inference_only"}
    made = generator(form, synthesis_kwargs=EasyDict(), **flat)
    assert convert(write(official(made)), tmp_path / "a.safetensors").weights.form == form
    for name, module in made.named_modules():
        if name.endswith(("conv0", "conv1", "torgb")):
            module.conv_clamp = None
        if "mapping.fc" in name:
            module.bias_gain = np.float64(0.02)  # numpy's numbers are pickled as calls
    found = convert(write(official(made)), tmp_path / "b.safetensors").weights.form
    assert (found.clamp, found.mapping_rate) == (None, 0.02)
    for wrong in (-1.0, "x", 0):
        for index in range(2):
            made.get_submodule(f"mapping.fc{index}").bias_gain = wrong
        with pytest.raises(CorruptFile, match="mapping_rate"):
            convert(write(official(made)), tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"img_resolution": 32}, BadWeights, r"synthesis\.stages\.3\S+ is missing"),
        ({"img_resolution": 24}, CorruptFile, "resolution is 24"),
        ({"img_resolution": 10**9}, CorruptFile, "resolution is"),
        ({"img_resolution": "16"}, CorruptFile, "resolution is -1"),
        ({"z_dim": 7}, BadWeights, r"mapping\.layers\.0\.weight is \[6, 5\] instead of \[6, 7\]"),
        ({"w_dim": 10**9}, CorruptFile, "sizes of a StyleGAN2"),
        ({"c_dim": 2}, BadWeights, r"mapping\.embed\.weight is missing"),
        ({"mapping_kwargs": {"num_layers": 1}}, BadWeights, r"mapping\.fc1\.weight is unknown"),
        ({"mapping_kwargs": {"layer_features": 9}}, Unsupported, "other widths"),
        ({"synthesis_kwargs": {"channel_base": 64, "channel_max": 4}}, BadWeights, "instead of"),
        ({"synthesis_kwargs": {"magnitude_ema_beta": 0.5}}, Unsupported, "magnitude_ema_beta"),
    ],
)
def test_declared_sizes_and_tensors_must_agree(
    changes: dict[str, Any], error: type[VestigeError], words: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        convert(write(official(generator(**changes))), tmp_path / "net.safetensors")
    assert not (tmp_path / "net.safetensors").exists()


@pytest.mark.parametrize(
    ("module", "name", "value", "error", "words"),
    [
        ("synthesis.b8", "architecture", "resnet", Unsupported, r"sets synthesis\.b8\.architecture"),
        ("synthesis.b8.conv0", "activation", "relu", Unsupported, r"sets synthesis\.b8\.conv0\.activation"),
        ("synthesis.b8.conv0", "use_noise", 1, Unsupported, r"sets synthesis\.b8\.conv0\.use_noise"),
        ("synthesis.b8.conv0", "resample_filter", TAPS * 2, Unsupported, r"taps than \[1, 3, 3, 1\]"),
        ("synthesis.b4.conv1", "conv_clamp", "x", Unsupported, "conv_clamp differently"),
        ("synthesis.b4.conv1", "conv_clamp", None, Unsupported, "conv_clamp differently"),
        ("synthesis.b4.conv1", "noise_const", torch.full((4, 4), float("inf")), BadWeights, "not finite"),
        ("mapping.fc0", "bias_gain", -1.0, Unsupported, "bias_gain differently"),
        ("mapping", "_non_persistent", 1 << 300, CorruptFile, "256 bits"),
    ],
)
def test_other_networks_are_refused(
    module: str,
    name: str,
    value: Any,
    error: type[VestigeError],
    words: str,
    write: Callable[..., Path],
    tmp_path: Path,
) -> None:
    made = generator()
    setattr(made.get_submodule(module), name, value)
    with pytest.raises(error, match=words):
        convert(write(official(made)), tmp_path / "net.safetensors")


def test_files_without_a_generator_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    for value in (None, {}, {"G_ema": 3}, [1], {"g_ema": 3}):
        with pytest.raises(Unsupported, match="no generator under G_ema"):
            convert(write(pickle.dumps(value)), out)
    with pytest.raises(Unsupported, match=r"\(Generator\) is no StyleGAN2 as it is known here: no synthesis"):
        convert(write(official(part("Generator", {}, _init_kwargs={}))), out)
    with pytest.raises(BadWeights, match=r"input\.input"):
        convert(write(pickle.dumps({"g_ema": {"a": torch.ones(2)}})), out)
    deep = part("Generator", {})
    for _ in range(20):
        deep = part("Block", {}, inside=deep)
    with pytest.raises(CorruptFile, match="too many"):
        convert(write(official(deep)), out)
    out.write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        convert(write(official(generator())), out)
    assert out.read_bytes() == b"mine"
    convert(write(official(generator())), out, overwrite=True)
    assert read_stylegan2(out).form == FORM


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def plant(where: str, evil: object) -> bytes:
    """An official pickle with something else hidden in it."""
    made = generator()
    if where == "settings":
        return official(made, augment_pipe=evil)
    if where == "arguments":
        made._init_kwargs["z_dim"] = evil
    elif where == "state":
        made.get_submodule("synthesis.b8.conv1").hidden = evil
    elif where == "tensor":
        made.get_submodule("synthesis.b8.conv1")._buffers["noise_const"] = evil
    elif where == "storage":
        storage = Evil(torch.storage._load_from_bytes, (evil,))
        tensor = Evil(torch._utils._rebuild_tensor_v2, (storage, 0, (8, 8), (8, 1), False, {}))
        made.get_submodule("synthesis.b8.conv1")._buffers["noise_const"] = tensor
    elif where == "build":
        numbers = torch.randn(64).untyped_storage()
        base = torch.storage.TypedStorage(wrap_storage=numbers, dtype=torch.float32, _internal=True)
        call = (torch._utils._rebuild_tensor_v2, (base, 0, (8, 8), (8, 1), False, {}), {"state": evil})
        made.get_submodule("synthesis.b8.conv1")._buffers["noise_const"] = Evil(*call)
    return official(made)


@pytest.mark.parametrize("where", ["settings", "arguments", "state", "tensor", "storage", "build"])
def test_nothing_hidden_in_a_file_is_executed(where: str, write: Callable[..., Path], tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for call, name in (
        ((os.system, (f"touch {mark}",)), r"posix\.system"),
        ((eval, (f"open({str(mark)!r}, 'w')",)), r"builtins\.eval"),
        ((exec, (f"open({str(mark)!r}, 'w')",)), r"builtins\.exec"),
        ((torch.load, (str(mark),)), r"torch\.serialization\.load"),
        ((__import__, ("os",)), r"builtins\.__import__"),
    ):
        with pytest.raises(Unsupported, match=f"names {name}, which is refused"):
            convert(write(plant(where, Evil(*call))), tmp_path / "net.safetensors")
    assert not mark.exists()
    assert not (tmp_path / "net.safetensors").exists()


def ported(network: StyleGan2) -> dict[str, Tensor]:
    """The same generator under the names and in the layouts of the PyTorch port."""
    state, form = network.state_dict(), network.form
    found = {"input.input": state["synthesis.constant"][None]}
    for index in range(form.mapping_layers):
        for name in ("weight", "bias"):
            found[f"style.{index + 1}.{name}"] = state[f"mapping.layers.{index}.{name}"]
    order = [("stages.0.second", "conv1")]
    for index in range(1, len(form.channels)):
        order += [(f"stages.{index}.first", f"convs.{2 * index - 2}")]
        order += [(f"stages.{index}.second", f"convs.{2 * index - 1}")]
        found[f"convs.{2 * index - 2}.conv.blur.kernel"] = TAPS * 4
        found[f"to_rgbs.{index - 1}.upsample.kernel"] = TAPS * 4
    for number, (ours, its) in enumerate(order):
        weight = state[f"synthesis.{ours}.convolution.weight"]
        found[f"{its}.conv.weight"] = weight[None] * weight[0].numel() ** 0.5
        found[f"{its}.activate.bias"] = state[f"synthesis.{ours}.bias"]
        found[f"{its}.noise.weight"] = state[f"synthesis.{ours}.strength"][None]
        found[f"noises.noise_{number}"] = state[f"synthesis.{ours}.noise"][None, None]
        for name in ("weight", "bias"):
            found[f"{its}.conv.modulation.{name}"] = state[f"synthesis.{ours}.convolution.style.{name}"]
    for index in range(len(form.channels)):
        ours, its = f"synthesis.stages.{index}.picture", f"to_rgbs.{index - 1}" if index else "to_rgb1"
        found[f"{its}.conv.weight"] = state[f"{ours}.convolution.weight"][None]
        found[f"{its}.bias"] = state[f"{ours}.bias"].view(1, -1, 1, 1)
        for name in ("weight", "bias"):
            found[f"{its}.conv.modulation.{name}"] = state[f"{ours}.convolution.style.{name}"]
    return found


def test_files_of_the_port_are_read_with_or_without_a_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = StyleGan2(StyleGan2Form((4, 3, 2), latent=6, style=6, mapping_layers=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    entries, mean, z = ported(network), torch.randn(6), torch.randn(3, 6)
    arguments = argparse.Namespace(size=16, r1=10.0)
    for number, value in enumerate(({"args": arguments}, {"latent_avg": mean}, {"latent_avg": mean.tolist()})):
        path = tmp_path / f"{number}.pt"
        torch.save({"g": entries, "g_ema": entries, **value}, path, _use_new_zipfile_serialization=number != 1)
        done = convert(path, tmp_path / f"{number}.safetensors")
        found = load_stylegan2(done.out)
        assert done.weights.form == network.form
        torch.testing.assert_close(found(z), network(z), rtol=1e-4, atol=1e-4)
        if number == 1:
            assert torch.equal(found.mapping.mean, mean)
        else:
            many = network.mapping(torch.randn(100_000, 6)).mean(0)
            torch.testing.assert_close(found.mapping.mean, many, rtol=0, atol=0.05)
    for name in ("convs.1.conv.weight", "noises.noise_2", "to_rgbs.1.conv.modulation.bias"):
        torch.save({"g_ema": {key: value for key, value in entries.items() if key != name}}, tmp_path / "part.pt")
        with pytest.raises(BadWeights):
            convert(tmp_path / "part.pt", tmp_path / "part.safetensors")
    torch.save({"g_ema": {**entries, "convs.0.conv.blur.kernel": TAPS**2}}, tmp_path / "taps.pt")
    with pytest.raises(Unsupported, match="other taps"):
        convert(tmp_path / "taps.pt", tmp_path / "part.safetensors")


_CACHE: dict[str, bytes] = {}


def small() -> bytes:
    """A whole pickle of a generator of 8 pixels."""
    form = StyleGan2Form((2, 1), latent=1, style=1, mapping_layers=1, clamp=256.0)
    kwargs = EasyDict(channel_base=8, channel_max=2)
    return _CACHE.setdefault("small", pickle.dumps({"G_ema": generator(form, synthesis_kwargs=kwargs)}, 4))


def test_the_small_file_is_whole(write: Callable[..., Path], tmp_path: Path) -> None:
    assert convert(write(small()), tmp_path / "net.safetensors").weights.form.channels == (2, 1)


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_give_typed_errors_or_weights(data: st.DataObject, tmp_path_factory: Any) -> None:
    content = bytearray(small())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0 if len(content) < len(small()) else 1, 5)) if content else 0):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "net.pkl").write_bytes(content)
    try:
        done = convert(folder / "net.pkl", folder / "net.safetensors")
    except VestigeError:
        assert not (folder / "net.safetensors").exists()
    else:
        done.weights.network()
