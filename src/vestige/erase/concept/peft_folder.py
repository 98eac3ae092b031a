"""Low-rank increments as adapters that PEFT and diffusers load by themselves.

``PeftModel.from_pretrained(unet, FOLDER)`` reads ``adapter_config.json`` and ``adapter_model.safetensors``;
``pipeline.load_lora_weights(FOLDER)`` reads ``pytorch_lora_weights.safetensors``. Either adds ``up down`` at full
strength: alpha equals the rank.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from vestige.erase.increment import Increment
from vestige.store import write_bytes, write_text

CONFIG, PEFT, DIFFUSERS = "adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors"


def write_peft(increment: Increment, folder: Path, part: str = "unet") -> bool:
    """Write the adapter's files beside an increment, or return False if it is not of low rank throughout.

    ``part`` is what the pipeline calls the network that it changes.
    """
    if not increment.factors or set(increment.factors) != set(increment.delta):
        return False
    layers = {name.removesuffix(".weight"): pair for name, pair in increment.factors.items()}
    ranks = {name: len(down) for name, (_, down) in layers.items()}
    most = max(ranks.values())
    config = {
        "peft_type": "LORA",
        "r": most,
        "lora_alpha": most,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != most},
        "alpha_pattern": {name: rank for name, rank in ranks.items() if rank != most},
        "target_modules": sorted(layers),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": None,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    for file, prefix in ((PEFT, "base_model.model."), (DIFFUSERS, f"{part}.")):
        tensors: dict[str, Tensor] = {}
        for name, (up, down) in layers.items():
            tensors[f"{prefix}{name}.lora_A.weight"] = down.contiguous().clone()
            tensors[f"{prefix}{name}.lora_B.weight"] = up.contiguous().clone()
        write_bytes(folder / file, save(tensors, metadata={"format": "pt"}))
    return True
