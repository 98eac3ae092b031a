from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vestige.erase.applied import applied
from vestige.erase.increment import MANIFEST, WEIGHTS, Increment, add, compose
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, InvalidInput, NotFound, NothingChanged


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def change(seed: int, base: nn.Module, name: str = "", base_digest: str = "base") -> Increment:
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
