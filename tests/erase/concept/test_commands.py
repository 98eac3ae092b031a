from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vestige.cli.main import app
from vestige.erase.applied import applied
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.concept.uce import UCE
from vestige.erase.increment import Increment
from vestige.errors import AlreadyExists, DigestMismatch, InvalidInput, NotFound, Unsupported, VestigeError
from vestige.features.pixels import BlockMeans
from vestige.features.scene_judge import SceneJudge, SceneNetwork, save_judge
from vestige.jobs.concept_matrix import Judging, concept_matrix
from vestige.jobs.concepts import erase_concepts
from vestige.jobs.increments import apply_increments, compose_increments, describe_increments, remove_increments
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.models.sampler import DDIM

METHOD = SepME(steps=3, batch_size=2, rank=3, trajectories=1, sampling_steps=3, learning_rate=0.05, threshold=-9.0)
SETTINGS = ["steps=3", "batch_size=2", "rank=3", "trajectories=1", "sampling_steps=3", "learning_rate=0.05"]
DRAWING = Drawing(DDIM(2, clip=False), guidance=3.0)


@pytest.fixture(scope="module")
def erased(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two concepts at once, then one more."""
    out = tmp_path_factory.mktemp("increments") / "inc"
    first = erase_concepts(base_folder, ["outlined", "red"], out=out, method=METHOD, templates=["{}"], keep=["thick"])
    assert [folder.name for folder in first.folders] == ["outlined", "red"]
    more = erase_concepts(base_folder, ["thick"], out=out, method=METHOD, templates=["{}"], add=True)
    assert [increment.manifest.name for increment in more.earlier] == ["outlined", "red"]
    assert more.increments[0].manifest.settings["keep"] == ["outlined", "red"]
    return out


def test_increments_are_listed_applied_removed_and_composed_to_the_bit(
    erased: Path, base: TextToImage, base_folder: Path, tmp_path: Path
):
    assert [row[1] for row in describe_increments([erased]).rows] == ["outlined", "red", "thick"]
    paths = [erased / name for name in ("outlined", "red", "thick")]
    digest = apply_increments(base_folder, paths, out=tmp_path / "all")
    loaded = [(Increment.load(path), 1.0) for path in paths]
    assert digest == applied(base, loaded).digest
    assert [row[1] for row in describe_increments([tmp_path / "all"]).rows] == ["outlined", "red", "thick"]
    kept = base.latents(["", "a blue two"], [0, 1], 0, DRAWING)
    now = load_text_to_image(tmp_path / "all").latents(["", "a blue two"], [0, 1], 0, DRAWING)
    torch.testing.assert_close(now[0], kept[0], rtol=1e-4, atol=1e-4)
    less, is_base = remove_increments(tmp_path / "all", ["red"], out=tmp_path / "less")
    assert not is_base
    assert less == applied(base, [loaded[0], loaded[2]]).digest
    back, is_base = remove_increments(tmp_path / "less", [], out=tmp_path / "back")
    assert is_base
    assert back == base.digest
    compose_increments(paths[:2], out=tmp_path / "both", name="both")
    assert apply_increments(base_folder, [tmp_path / "both"], out=tmp_path / "two") != digest


def test_low_rank_increments_are_adapters_of_diffusers_and_of_peft(erased: Path, base: TextToImage, base_folder: Path):
    peft = pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    increment = Increment.load(erased / "red")
    x, t = base.starts([0], 0), torch.tensor([0.5])
    rows = base.embeddings(["red"])
    with torch.no_grad():
        wanted = applied(base, [(increment, 1.0)]).denoiser().predict_embedded(x, t, rows)
        plain = base.denoiser().predict_embedded(x, t, rows)
        assert float((wanted - plain).abs().max()) > 1e-3
        pipeline = StableDiffusionPipeline.from_pretrained(base_folder)
        pipeline.load_lora_weights(erased / "red")
        torch.testing.assert_close(_Called.answer(pipeline.unet, x, rows), wanted, rtol=1e-4, atol=1e-4)
        pipeline.unload_lora_weights()
        torch.testing.assert_close(_Called.answer(pipeline.unet, x, rows), plain, rtol=1e-4, atol=1e-4)
        wrapped = peft.PeftModel.from_pretrained(pipeline.unet, str(erased / "red"))
        torch.testing.assert_close(_Called.answer(wrapped, x, rows), wanted, rtol=1e-4, atol=1e-4)


class _Called:
    """The network called as diffusers calls it, at the step of time 0.5."""

    @staticmethod
    def answer(network: torch.nn.Module, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return network(x, torch.tensor([499]), rows).sample


def test_the_matrix_has_a_cell_for_every_prompt_and_increment(erased: Path, base_folder: Path, tmp_path: Path):
    attributes = {"colour": ("red", "blue"), "style": ("outlined", "plain")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_judge(SceneNetwork(attributes), attributes, tmp_path / "judge.safetensors")
    judge = SceneJudge(tmp_path / "judge.safetensors")
    counted = Judging(BlockMeans(), judge)
    assert counted.named("thick") is None
    pictures = np.zeros((3, 3, 32, 32), np.uint8)
    both = [counted.named(word) for word in ("red", "blue")]
    assert sum(count(pictures) for count in both if count is not None) == 3
    run = concept_matrix(
        base_folder, [erased], out=tmp_path / "m", prompts=["a blue two"], draws=2, drawing=DRAWING, show_images=True
    )
    tables = {table.name: table for table in run.record.sections[0].tables}
    assert tables["pixels"].columns == ["prompt", "none", "outlined", "red", "thick", "all"]
    assert [row[0] for row in tables["pixels"].rows] == ["outlined", "red", "thick", "a blue two", "(empty)"]
    cells = np.array([row[1:] for row in tables["pixels"].rows], float)
    moved = cells > 0.005
    assert moved.tolist()[:3] == [
        [False, True, False, False, True],
        [False, False, True, False, True],
        [False, False, False, True, True],
    ]
    assert not moved[4].any()
    assert len(tables["weights"].rows) == 8
    assert all(0 < row[1] < 1 for row in tables["weights"].rows)
    assert "<img" in (tmp_path / "m" / "report.html").read_text()
    with pytest.raises(NotFound):
        concept_matrix(base_folder, [tmp_path / "empty"], out=tmp_path / "n")


def test_what_does_not_fit_together_is_refused(erased: Path, base_folder: Path, pipeline_folder: Path, tmp_path: Path):
    with pytest.raises(AlreadyExists, match="--add"):
        erase_concepts(base_folder, ["thin"], out=erased, method=METHOD)
    with pytest.raises(InvalidInput, match="to be erased and to be kept"):
        erase_concepts(base_folder, ["red"], out=erased, method=METHOD, templates=["{}"], add=True)
    with pytest.raises(Unsupported, match="no prompts"):
        erase_concepts(pipeline_folder, ["red"], out=tmp_path / "x", method=METHOD)
    changed = tmp_path / "changed"
    apply_increments(base_folder, [erased / "red"], out=changed)
    (changed / "vestige" / "applied.json").unlink()
    with pytest.raises(DigestMismatch):
        erase_concepts(changed, ["thin"], out=erased, method=METHOD, templates=["{}"], add=True)


def test_one_concept_is_not_erased_twice(erased: Path, base_folder: Path, tmp_path: Path):
    other = erase_concepts(base_folder, ["red"], out=tmp_path / "uce", method=UCE())
    with pytest.raises(InvalidInput, match=r"SepME and UCE\) both erase 'red'"):
        apply_increments(base_folder, [erased / "red", other.folders[0]], out=tmp_path / "two")
    with pytest.raises(InvalidInput, match="both erase"):
        compose_increments([erased / "red", other.folders[0]], out=tmp_path / "both")
    assert apply_increments(base_folder, [erased / "outlined", other.folders[0]], out=tmp_path / "mixed")


def test_the_command_line(base_folder: Path, tmp_path: Path):
    out = tmp_path / "inc"
    told = [word for setting in SETTINGS for word in ("--set", setting)]
    line = ["erase", str(base_folder), "--concept", "outlined", "--method", "sepme", "--out", str(out), *told]
    done = CliRunner().invoke(app, [*line, "--template", "{}", "--keep", "a blue two"])
    assert done.exit_code == 0, done.output
    assert "matrix" in done.output
    more = [str(out) if word == "outlined" else word for word in line]
    more[3] = "red"
    done = CliRunner().invoke(app, [*more, "--template", "{}", "--add"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["outlined", "red"]
    for wrong in ([*line, "--forget", "class:1"], ["erase", str(base_folder), "--out", str(out)], [*line[:2], "--add"]):
        failed = CliRunner().invoke(app, wrong)
        assert failed.exit_code != 0
        assert failed.exception is None or isinstance(failed.exception, VestigeError | SystemExit)


def test_concepts_are_erased_in_the_sentences_of_a_file(base_folder: Path, tmp_path: Path):
    told = tmp_path / "captions.txt"
    told.write_text("a red two\na blue two\n\nthin two\nthe thick one\n", encoding="utf-8")
    out = tmp_path / "inc"
    line = ["erase", str(base_folder), "--concept", "red", "--captions", str(told), "--out", str(out)]
    short = [word for setting in (*SETTINGS, "refresh=0") for word in ("--set", setting)]
    done = CliRunner().invoke(app, [*line, "--concept", "thick", *short])
    assert done.exit_code == 0, done.output
    found = Increment.load(out / "red").manifest
    assert (found.method, found.settings["templates"]) == ("GuardedSepME", ["{}", "a {} two"])
    assert found.settings["guard"] == ["a blue two", "thin two", "the thick one"]
    assert Increment.load(out / "thick").manifest.settings["templates"] == ["{}", "the {} one"]
    failed = CliRunner().invoke(app, [*line, "--concept", "thikc", "--add", *short])
    assert isinstance(failed.exception, InvalidInput)
    assert sorted(path.name for path in out.iterdir()) == ["red", "thick"]


def test_the_request_of_one_concept_keeps_the_others():
    whole = ConceptRequest(("red", "thick"), ("{}", "a {}"), keep=("blue",), anchors=("green", ""))
    one = whole.only("red")
    assert one.keep == ("blue", "thick")
    assert one.guard == ("a thick",)
    assert one.anchors == ("green",)
    assert one.anchored("red") == ["green", "a green"]
    assert whole.anchored("thick") == ["", ""]
