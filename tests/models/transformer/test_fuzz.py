"""Settings of any kind beside good weights: a model, or an error of ours."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vestige.errors import VestigeError
from vestige.models.transformer.forward import forward
from vestige.models.transformer.open import describe
from vestige.models.weights import WeightSource, open_weights

SETTINGS = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 64),
    st.floats(),
    st.sampled_from(["", "gelu", "linear", "yarn", "llama3", "longrope", "full_attention", "sliding_attention"]),
    st.lists(st.one_of(st.integers(-2, 9), st.just("sliding_attention"), st.none()), max_size=4),
    st.dictionaries(
        st.sampled_from(
            ["rope_type", "rope_theta", "factor", "short_factor", "beta_fast", "original_max_position_embeddings"]
        ),
        st.one_of(st.floats(), st.integers(), st.sampled_from(["yarn", "linear", "llama3", "longrope", "default"])),
        max_size=4,
    ),
)
KINDS = ["llama-yarn", "qwen2_moe"]
MORE = ["gemma3", "phi3-long", "gpt2", "falcon-40b"]


@pytest.fixture(scope="module", params=[*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE)])
def model(request: pytest.FixtureRequest, folder_of) -> tuple[WeightSource, dict[str, Any]]:
    folder = folder_of(request.param)
    return open_weights(folder), json.loads((folder / "config.json").read_text())


@given(data=st.data())
@SETTINGS
def test_any_settings(data: st.DataObject, model: tuple[WeightSource, dict[str, Any]]) -> None:
    source, good = model
    names = data.draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=3))
    changes = {name: data.draw(ODD, label=name) for name in names}
    try:
        found = describe(source, {**good, **changes})
        found.final_norm(), found.embedding_norm(), found.positions()
        for index in range(found.depth):
            tuple(found.block(index).experts)
        logits = forward(found, np.arange(5))
    except VestigeError:
        return
    assert logits.shape == (5, found.vocabulary)
