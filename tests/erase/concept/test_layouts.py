from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from vestige.erase.applied import applied, open_base, write_applied
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.esd import ESD
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.concept.uce import UCE
from vestige.models.adapters.text_to_image_load import load_text_to_image

SEPME = SepME(steps=3, batch_size=1, rank=2, trajectories=1, sampling_steps=2, learning_rate=0.1, threshold=-9.0)
ESD_X = ESD(steps=2, batch_size=1, trajectories=1, sampling_steps=2, learning_rate=1e-2)


@pytest.mark.parametrize("layout", ["sdxl", "sd3"])
@pytest.mark.parametrize("method", [SEPME, UCE(), ESD_X])
def test_concepts_leave_other_layouts_too(
    layout: str, method: ConceptEraser, small_pipelines: ModuleType, tmp_path: Path
):
    pipeline = small_pipelines.LAYOUTS[layout](tmp_path)
    pipeline.save_pretrained(tmp_path / "base")
    base = load_text_to_image(tmp_path / "base")
    (increment,) = method.erase(base, ConceptRequest(("red",), ("{}",), keep=("thin",), anchors=("blue",)))
    erased = applied(base, [(increment, 1.0)])
    prompts = ["", "thin", "red"]
    x, t = base.starts([0, 0, 0], 0), torch.full((3,), 0.6)
    with torch.no_grad():
        moved = erased.denoiser().predict_embedded(x, t, base.embeddings(prompts))
        moved = (moved - base.denoiser().predict_embedded(x, t, base.embeddings(prompts))).flatten(1).abs().amax(1)
    assert float(moved[2]) > 1e-5
    if isinstance(method, SepME):
        assert float(moved[:2].max()) < 1e-2 * float(moved[2])
    written = write_applied(tmp_path / "erased", base, [(increment, 1.0)])
    assert written.digest == erased.digest
    found, _ = open_base(tmp_path / "erased")
    assert found.digest == base.digest
