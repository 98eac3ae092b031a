from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from vestige.errors import BadWeights, InvalidInput, Unsupported
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.adapters.text_to_image_load import is_text_to_image, load_text_to_image
from vestige.models.adapters.text_to_image_network import attention_maps, cross_attentions
from vestige.models.guidance import Guided
from vestige.models.sampler import DDIM

pytest.importorskip("transformers")
PROMPTS = ["a thin red seven, outlined", "a blue two"]


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3"])
def pipeline(request: pytest.FixtureRequest, layouts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = layouts[request.param](tmp_path_factory.mktemp("words"))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def plain(layouts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return layouts["sd"](tmp_path_factory.mktemp("words"))


def test_a_folder_holds_the_same_model_as_the_pipeline_and_is_written_for_diffusers_again(
    pipeline: Any, tmp_path: Path
):
    pipeline.save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "model.py").write_text("raise SystemExit")
    assert is_text_to_image(tmp_path / "first")
    model = load_text_to_image(tmp_path / "first")
    assert model.digest == TextToImage(pipeline).digest
    model.save(tmp_path / "second")
    assert not (tmp_path / "second" / "model.py").exists()
    missing = dict.fromkeys(("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor"))
    given = missing if "transformer" in pipeline.components else {}
    again = type(pipeline).from_pretrained(tmp_path / "second", **given)
    assert TextToImage(again).digest == model.digest
    with torch.no_grad():
        next(again.vae.parameters()).add_(1)
    assert TextToImage(again).digest != model.digest


def test_embeddings_are_those_of_the_pipeline_and_kept(pipeline: Any):
    model = TextToImage(pipeline)
    more = {"prompt_2": None, "prompt_3": None} if "transformer" in pipeline.components else {}
    answer = pipeline.encode_prompt(
        prompt=PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **more
    )
    rows = model.embeddings([*PROMPTS, "", ""])
    torch.testing.assert_close(model.tokens(PROMPTS), answer[0])
    torch.testing.assert_close(model.tokens(["", ""]), answer[1])
    if len(answer) == 4:
        torch.testing.assert_close(model.prompts.unpacked(rows)[1], torch.cat(answer[2:]))
    elsewhere = model.embeddings(["", PROMPTS[1]])
    assert torch.equal(elsewhere, rows[[2, 1]])


def test_sampling_is_that_of_the_pipeline(pipeline: Any):
    model = TextToImage(pipeline)
    steps, flow = 5, "transformer" in pipeline.components
    if not flow:
        pipeline.scheduler = DDIMScheduler.from_config(
            pipeline.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, steps_offset=0
        )
    start = model.starts([4, 7], 3)
    drawing = Drawing(DDIM(steps, clip=False), guidance=3.0, batch_size=1)
    mine = model.latents(PROMPTS, [4, 7], 3, drawing)
    theirs = pipeline(
        PROMPTS,
        height=8,
        width=8,
        num_inference_steps=steps,
        guidance_scale=3.0,
        latents=start,
        output_type="latent",
    ).images
    if flow:  # its own grid of times ends one step before 0
        assert mine.shape == theirs.shape
    else:
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    assert model.evaluations == 2 * 2 * steps
    pictures = model.decode(mine)
    assert pictures.shape == (2, 3, 8, 8)
    assert pictures.dtype == np.uint8
    together = model.latents(PROMPTS, [4, 7], 3, Drawing(DDIM(steps, clip=False), guidance=3.0))
    torch.testing.assert_close(mine, together, rtol=1e-3, atol=1e-3)


def test_flow_is_told_a_thousand_times_the_time(layouts: dict[str, Any], tmp_path: Path):
    pipeline = layouts["sd3"](tmp_path)
    model = TextToImage(pipeline)
    x = model.starts([0], 1)
    rows = model.embeddings(PROMPTS[:1])
    tokens, pooled = model.prompts.unpacked(rows)
    with torch.no_grad():
        wanted = pipeline.transformer(
            hidden_states=x,
            timestep=torch.tensor([300.0]),
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        denoiser = model.denoiser(PROMPTS)
        t = torch.tensor([0.3])
        torch.testing.assert_close(denoiser.predict(x, t, torch.tensor([0])), wanted)
        # x_0 = x_t - t v on the straight line
        torch.testing.assert_close(denoiser.mean(x, t, torch.tensor([0])), x - 0.3 * wanted)


def test_guidance_and_another_network_fit_the_protocol_of_denoisers(plain: Any):
    model = TextToImage(plain)
    denoiser = model.denoiser(PROMPTS)
    x, t = model.starts([0, 1], 0), torch.tensor([0.5, 0.7])
    with torch.no_grad():
        given = denoiser.predict(x, t, torch.tensor([0, 1]))
        empty = denoiser.predict(x, t, None)
        guided = Guided(denoiser, 2.5).predict(x, t, torch.tensor([0, 1]))
    torch.testing.assert_close(guided, empty + 2.5 * (given - empty))
    other = copy.deepcopy(model.module)
    with torch.no_grad():
        next(iter(other.parameters())).mul_(2)
    changed = model.with_module(other)
    assert changed.digest != model.digest
    assert changed.with_module(model.module).digest == model.digest
    with torch.no_grad():
        assert not torch.allclose(changed.denoiser(PROMPTS).predict(x, t, torch.tensor([0, 1])), given)


def test_readers_are_all_that_sees_the_text(pipeline: Any):
    """With their weights at zero (and biases alone left) prompts make no difference but by the pooled vector."""
    model = TextToImage(pipeline)
    kept = {name: layer.weight.clone() for name, layer in model.readers().items()}
    x, t = model.starts([0, 0], 0), torch.tensor([0.5, 0.5])
    rows = model.embeddings(PROMPTS)
    rows[:, model.prompts.tokens :] = rows[:1, model.prompts.tokens :]
    try:
        with torch.no_grad():
            before = model.denoiser().predict_embedded(x, t, rows)
            for layer in model.readers().values():
                layer.weight.zero_()
            after = model.denoiser().predict_embedded(x, t, rows)
    finally:
        with torch.no_grad():
            for name, layer in model.readers().items():
                layer.weight.copy_(kept[name])
    assert float((before[0] - before[1]).abs().max()) > 1e-4
    torch.testing.assert_close(after[0], after[1])


def test_attention_maps_are_probabilities_and_leave_the_answer_alone(plain: Any):
    model = TextToImage(plain)
    denoiser = model.denoiser(PROMPTS)
    x, t, asked = model.starts([0, 1, 2], 0), torch.full((3,), 0.4), torch.tensor([0, 1, 2])
    with torch.no_grad():
        before = denoiser.predict(x, t, asked)
        with attention_maps(model.module) as maps:
            during = denoiser.predict(x, t, asked)
        after = denoiser.predict(x, t, asked)
    torch.testing.assert_close(during, before)
    assert torch.equal(after, before)
    assert set(maps) == set(cross_attentions(model.module))
    for found in maps.values():
        assert found.shape[:2] == (3, 2)
        assert found.shape[3] == model.prompts.tokens
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:3]))


def test_a_concepts_places_and_its_spelling(plain: Any):
    tower = TextToImage(plain).prompts.tower
    ids = tower.ids(["a thin red seven, outlined"])[0].tolist()
    (place,) = tower.places("a thin red seven, outlined", "red")
    assert [ids[place]] == tower.content("red")
    assert tower.places("a thin red seven, outlined", "blue") == []
    tower.check("red seven")
    with pytest.raises(InvalidInput, match="tokenizer"):
        tower.check("   ")
    with pytest.raises(InvalidInput, match="tokens"):
        tower.check("red " * 20)


def test_the_encoder_reads_token_embeddings_in_place_of_ids(plain: Any):
    prompts = TextToImage(plain).prompts
    ids = prompts.tower.ids(PROMPTS)
    soft = prompts.tower.table[ids].detach().requires_grad_()
    tokens, _ = prompts.encode([ids], [soft])
    torch.testing.assert_close(tokens, prompts.embeddings(PROMPTS))
    tokens.square().sum().backward()
    assert soft.grad is not None
    assert float(soft.grad.abs().min(-1).values.max()) > 0


def test_encoding_undoes_decoding_only_up_to_the_vae_but_keeps_shapes_and_scale(plain: Any):
    model = TextToImage(plain)
    pixels = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    latents = model.encode(pixels)
    assert latents.shape == (2, 4, 4, 4)
    raw = plain.vae.encode(torch.from_numpy(pixels).float() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(latents, raw * plain.vae.config.scaling_factor)


@pytest.mark.parametrize("fault", ["fused", "quantised", "width", "pickle", "pipeline", "nan", "config"])
def test_what_cannot_be_read_is_said(fault: str, layouts: dict[str, Any], edit_json: Any, tmp_path: Path):
    folder = tmp_path / "model"
    pipeline = layouts["sd"](tmp_path)
    if fault == "fused":
        pipeline.unet.fuse_qkv_projections()
        with pytest.raises(Unsupported, match="fuse"):
            TextToImage(pipeline)
        return
    if fault == "quantised":
        layer = next(iter(TextToImage(pipeline).readers()))
        parent, _, leaf = layer.rpartition(".")
        setattr(pipeline.unet.get_submodule(parent), leaf, torch.nn.Identity())
        with pytest.raises(Unsupported, match="plain torch Linear"):
            TextToImage(pipeline)
        return
    if fault == "nan":
        with torch.no_grad():
            next(pipeline.unet.parameters()).fill_(float("nan"))
        with pytest.raises(BadWeights):
            TextToImage(pipeline)
        return
    if fault == "width":
        pipeline.text_encoder = layouts["clip"](pipeline.tokenizer, 32)
    pipeline.save_pretrained(folder)
    kind: type[Exception] = Unsupported
    match fault:
        case "width":
            kind, words = InvalidInput, "48"
        case "pickle":
            weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
            weights.rename(weights.with_suffix(".bin"))
            words = "safetensors"
        case "pipeline":
            edit_json(folder / "model_index.json", _class_name="KandinskyPipeline")
            words = "Kandinsky"
        case _:
            edit_json(folder / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes"})
            words = "quantised"
    with pytest.raises(kind, match=words):
        load_text_to_image(folder)
