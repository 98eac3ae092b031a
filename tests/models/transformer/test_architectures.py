"""Every architecture, read from a folder and from a module, computes what transformers computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.models.transformer.conftest import KINDS
from vestige.models.transformer.forward import forward
from vestige.models.transformer.open import open_transformer


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_that_of_transformers(kind: str, tiny, folder_of, ids, logits_of) -> None:
    expected = logits_of(tiny(kind), ids)
    stored = open_transformer(folder_of(kind))
    logits = forward(stored, ids)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert expected.std() > 0.1
