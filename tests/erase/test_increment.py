from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from vestige.digest import digest_tensors
from vestige.erase.applied import applied
from vestige.erase.increment import MANIFEST, WEIGHTS, Increment, add, compose
from vestige.erase.manifest import Manifest, provides
from vestige.errors import (
    AlreadyExists,
    CorruptFile,
    DigestMismatch,
    InvalidInput,
    NotFound,
    NothingChanged,
    Unsupported,
    VestigeError,
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def change(
    seed: int, base: nn.Module, name: str = "", base_digest: str = "base", after: Sequence[Increment] = ()
) -> Increment:
    """Moves both linear layers by small random amounts."""
    other = network()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for own, (key, value) in zip(base.parameters(), other.named_parameters(), strict=True):
            value.copy_(own if key.startswith("1") else own + 0.1 * torch.randn(own.shape, generator=random))
    return Increment.between(
        base,
        other,
        name=name or f"change-{seed}",
        base_digest=base_digest,
        method="Test",
        settings={"seed": seed},
        forgotten=[f"row-{seed}"],
        cost={"steps": 2.0},
        after=[increment.digest for increment in after],
    )


def test_only_what_moved_is_kept() -> None:
    made = change(1, network())
    assert set(made.delta) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    squares = sum(float(d.double().square().sum()) for d in made.delta.values())
    assert made.norm() == pytest.approx(squares**0.5)
    with pytest.raises(NothingChanged):
        Increment.between(network(), network(), name="n", base_digest="b", method="Test", settings={})


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = change(1, network())
    made.save(tmp_path / "increment")
    back = Increment.load(tmp_path / "increment")
    assert back.manifest == made.manifest
    assert back.digest == made.digest
    assert all(torch.equal(back.delta[key], value) for key, value in made.delta.items())
    with pytest.raises(AlreadyExists, match="--overwrite"):
        change(2, network()).save(tmp_path / "increment")
    assert Increment.load(tmp_path / "increment").digest == made.digest
    change(2, network()).save(tmp_path / "increment", overwrite=True)
    assert Increment.load(tmp_path / "increment").manifest.name == "change-2"
    with pytest.raises(NotFound, match=r"holds no increment\.json"):
        Increment.load(tmp_path)


def _swap_a_weight(folder: Path) -> None:
    delta = load_file(folder / WEIGHTS)
    delta["0.bias"][0] += 1e-6
    save_file(delta, folder / WEIGHTS)


def _edit_manifest(**fields: Any) -> Any:
    def edit(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**content, **fields}))

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        _swap_a_weight,
        _edit_manifest(delta="0" * 64),
        _edit_manifest(surprise=1),
        _edit_manifest(format=2),
        _edit_manifest(format="new"),
        _edit_manifest(forgotten="all"),
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-3]),
        lambda folder: (folder / WEIGHTS).write_bytes(b""),
        lambda folder: (folder / WEIGHTS).unlink(),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Any) -> None:
    change(1, network()).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CorruptFile):
        Increment.load(tmp_path)


def test_adding_nothing_keeps_every_bit_even_of_negative_zero() -> None:
    base = network()
    with torch.no_grad():
        base[0].weight[0] = -0.0
    made = change(1, base)
    made.delta["0.weight"][0] = 0.0
    for scale in (0.0, 1.0):
        module = network()
        module.load_state_dict(base.state_dict())
        add(module, [(made, scale)])
        assert torch.signbit(module[0].weight[0]).all()
        assert torch.equal(module[0].weight[1:], base[0].weight[1:]) == (scale == 0)


def test_scales_multiply_and_order_is_that_given() -> None:
    base = network()
    made = change(1, base)
    module = network()
    add(module, [(made, 0.5), (made, -2.0)])
    start = base.state_dict()["0.weight"]
    wanted = (start + 0.5 * made.delta["0.weight"]) + -2.0 * made.delta["0.weight"]
    assert torch.equal(module.state_dict()["0.weight"], wanted)
    # Statistics that no increment touches stay as they are.
    assert torch.equal(module.state_dict()["1.running_var"], base.state_dict()["1.running_var"])


def test_a_weight_that_the_model_does_not_have_is_refused() -> None:
    made = change(1, network())
    with pytest.raises(DigestMismatch, match=r"0\.weight"):
        add(nn.Sequential(nn.Linear(4, 4)), [(made, 1.0)])


def test_composing_is_applying_in_turn() -> None:
    base = network()
    parts = [change(seed, base) for seed in (1, 2, 3)]
    scales = [1.0, 0.5, -1.0]
    whole = compose(parts, "all", scales)
    assert whole.manifest.parts == [part.digest for part in parts]
    assert whole.manifest.settings == {"parts": ["change-1", "change-2", "change-3"], "scales": scales}
    assert whole.manifest.forgotten == ["row-1", "row-2", "row-3"]
    assert compose(parts[::-1], "all", scales[::-1]).manifest.parts == whole.manifest.parts[::-1]
    together, turn = network(), network()
    add(together, [(whole, 1.0)])
    add(turn, list(zip(parts, scales, strict=True)))
    largest = max(float(d.abs().max()) for part in parts for d in part.delta.values()) + 1
    for one, two in zip(together.parameters(), turn.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=largest * torch.finfo(torch.float32).eps)
    with pytest.raises(DigestMismatch, match="'change-4' was made for the model"):
        compose([parts[0], change(4, base, base_digest="other")], "mixed")
    with pytest.raises(InvalidInput, match="No increment"):
        compose([], "none")


def test_a_model_takes_only_increments_of_its_own(shop: Any) -> None:
    base, other = shop.denoiser(), shop.denoiser(width=24)
    made = Increment.between(
        base.module, _moved(base.module), name="moved", base_digest=base.digest, method="Test", settings={}
    )
    assert applied(base, [(made, 1.0)]).digest != base.digest
    with pytest.raises(DigestMismatch, match="'moved' was made for the model"):
        applied(other, [(made, 0.0)])


def _moved(module: nn.Module) -> nn.Module:
    other = type(module)(3)
    other.load_state_dict({k: v + 0.01 for k, v in module.state_dict().items()})
    return other


def masked(value: float = 0.5) -> Increment:
    """Moves one row of one layer of many weights."""
    base, other = nn.Linear(40, 50), nn.Linear(40, 50)
    other.load_state_dict(base.state_dict())
    with torch.no_grad():
        other.weight[3] += value
    return Increment.between(base, other, name="masked", base_digest="base", method="Test", settings={})


def test_a_change_of_few_weights_takes_little_room(tmp_path: Path) -> None:
    made = masked()
    made.save(tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size < 1000 < 4 * 40 * 50
    assert json.loads((tmp_path / MANIFEST).read_text())["format"] == made.manifest.format == 2
    back = Increment.load(tmp_path)
    assert back.manifest == made.manifest
    assert back.digest == made.digest
    assert torch.equal(back.delta["weight"], made.delta["weight"])
    assert compose([made, made], "twice").manifest.format == 2
    # The way it is written is no part of what the increment is: the dense file is the same one.
    (tmp_path / WEIGHTS).write_bytes(save(made.delta))
    _edit_manifest(format=1)(tmp_path)
    assert Increment.load(tmp_path).digest == made.digest


def test_increments_written_before_the_second_format_still_load(tmp_path: Path) -> None:
    delta = {"weight": torch.arange(6.0).view(2, 3)}
    (tmp_path / WEIGHTS).write_bytes(save(delta))
    manifest = {
        "format": 1,
        "name": "old",
        "base": "b" * 64,
        "method": "EraseDiff",
        "settings": {"steps": 2},
        "forgotten": ["row"],
        "parts": [],
        "delta": "f02e711bfbb045d1356ab2ab18bce322ccea3f60255423118cff17c63bfb26fa",
        "cost": {"steps": 2.0},
    }
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    back = Increment.load(tmp_path)
    assert torch.equal(back.delta["weight"], delta["weight"])
    assert back.manifest.after == []
    # Its name is the one that folders with it applied have noted.
    assert back.digest == "ee2c0161aa96df3c4269b7ff985de54fd3dd26f442dc243834cae3e470bc0ccc"


def test_a_format_of_the_future_is_named(tmp_path: Path) -> None:
    change(1, network()).save(tmp_path)
    _edit_manifest(format=4, novelty="unknown")(tmp_path)
    with pytest.raises(Unsupported, match=r"has format 4\. Expected: a format up to 3"):
        Increment.load(tmp_path)


@given(st.data())
def test_no_flipped_byte_of_the_weights_goes_unseen(data: st.DataObject) -> None:
    made = masked() if data.draw(st.booleans()) else change(1, network())
    with TemporaryDirectory() as folder:
        made.save(Path(folder))
        path = Path(folder) / data.draw(st.sampled_from([WEIGHTS, WEIGHTS, MANIFEST]))
        content = bytearray(path.read_bytes())
        # The header, where damage is strangest, is a small part of the file.
        last = len(content) - 1 if data.draw(st.booleans()) else min(len(content) - 1, 200)
        content[data.draw(st.integers(0, last))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(content))
        try:
            back = Increment.load(Path(folder))
        except VestigeError:
            return
        # What loads is either whole, or a manifest that reads differently and is another increment.
        assert all(torch.equal(back.delta[key], value) for key, value in made.delta.items())
        assert path.name == MANIFEST or back.manifest == made.manifest


def only(name: str, after: Sequence[str | Increment] = ()) -> Increment:
    """An increment of one number, built on others."""
    delta = {"weight": torch.tensor([float(len(name))])}
    needs = [item if isinstance(item, str) else item.digest for item in after]
    return Increment(Manifest(name=name, base="base", method="Test", settings={}, after=needs, delta="d"), delta)


def test_being_built_on_others_is_part_of_what_an_increment_is(tmp_path: Path) -> None:
    base = network()
    one = change(1, base)
    two = change(2, base, after=[one])
    assert two.manifest.after == [one.digest]
    assert two.digest != change(2, base).digest
    two.save(tmp_path)
    assert Increment.load(tmp_path).digest == two.digest


def test_a_composition_needs_what_its_parts_need_and_lack() -> None:
    a = only("a")
    b = only("b", [a])
    c = only("c", [a, b])
    assert compose([a, b, c], "abc").manifest.after == []
    assert compose([b, c], "bc").manifest.after == [a.digest]
    assert compose([c], "c").manifest.after == [a.digest, b.digest]
    assert compose([only("x"), c], "xc").manifest.after == [a.digest, b.digest]
    # It stands for the parts that it holds in full.
    half = compose([only("x"), a], "half", [0.5, 1.0])
    assert provides(half.manifest, 1.0) == [a.digest, half.digest]
    assert provides(half.manifest, 0.5) == []
    assert compose([half, b], "more").manifest.after == []


def test_needs_of_several_parts_are_put_in_an_order_that_suits_all() -> None:
    assert compose([only("p", ["y"]), only("q", ["x", "y"])], "pq").manifest.after == ["x", "y"]
    found = compose([only("p", ["x", "z"]), only("q", ["y", "z"]), only("r", ["x", "y"])], "pqr").manifest.after
    assert found == ["x", "y", "z"]
    with pytest.raises(InvalidInput, match="'q' would not come after"):
        compose([only("p", ["x", "y"]), only("q", ["y", "x"])], "pq")


def test_parts_that_would_not_stand_after_what_they_need_are_not_composed() -> None:
    a = only("a")
    b, c = only("b", [a]), only("c", [a, "outside"])
    for parts, scales in (([b, a], None), ([a, b], [0.5, 1.0]), ([a, c], None)):
        with pytest.raises(InvalidInput, match="in the order in which they were made"):
            compose(parts, "wrong", scales)


def test_nan_and_negative_zero_survive_the_disk(tmp_path: Path) -> None:
    delta = {"weight": torch.zeros(60, 60)}
    delta["weight"].view(-1).view(torch.int32)[:2] = torch.tensor([0x7F800123, -(1 << 31)], dtype=torch.int32)
    made = Increment(masked().manifest.model_copy(update={"delta": digest_tensors(delta)}), delta)
    made.save(tmp_path)
    back: Tensor = Increment.load(tmp_path).delta["weight"]
    assert torch.equal(back.view(torch.int32), delta["weight"].view(torch.int32))
    assert math.isnan(back[0, 0])
