"""Erasing concepts: what it costs, counted and timed, and what it does to the zoo's text-to-image model.

python benchmarks/concepts.py                    # the costs, at Stable Diffusion's true sizes
python benchmarks/concepts.py --model FOLDER     # the comparison of erasers as well, judged by the zoo's judge
python benchmarks/concepts.py --model FOLDER --seeds 1 --draws 40    # a trial
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import concepts_compared
import torch
from table import RESULTS, Row, write
from torch import Tensor

from vestige.erase.concept.closed_form import edit
from vestige.erase.concept.esd import ESD
from vestige.erase.concept.null_space import free_spaces
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.sampler import DDIM
from vestige.zoo.t2i_parts import assembled, new_text_encoder, new_tokenizer, new_unet, new_vae

WIDTH, TOKENS = 768, 77
OUTPUTS = (320,) * 10 + (640,) * 10 + (1280,) * 12
"""Rows of the 32 key and value maps of Stable Diffusion 1.x."""
_REPEATS = 3


def best(work: Callable[[], Any]) -> float:
    """Least seconds of a few runs."""
    spans: list[float] = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        spans.append(time.perf_counter() - started)
    return min(spans)


def prompts(count: int) -> list[Tensor]:
    """Tokens [77, 768] of prompts: the first one shared, the others with the falling spectrum of real encoders."""
    rng = torch.Generator().manual_seed(0)
    first = torch.randn(1, WIDTH, generator=rng)
    scale = torch.linspace(1, 0.05, WIDTH)
    return [torch.cat([first, torch.randn(TOKENS - 1, WIDTH, generator=rng) * scale]) for _ in range(count)]


def null_space_rows() -> list[Row]:
    """Null spaces of three and of nine prompts, beside singular vectors of each; the leak of both."""
    rows: list[Row] = []
    for count in (3, 9):
        stack = torch.cat(prompts(count))
        seconds = best(lambda stack=stack: free_spaces(stack, [stack[:0]]))
        reference = best(lambda stack=stack: torch.linalg.svd(stack.double(), full_matrices=True))
        (space,) = free_spaces(stack, [stack[:0]])
        size = f"{len(stack)}x{WIDTH}"
        rows.append(
            Row(
                f"sepme/null_space_seconds/{size}",
                seconds,
                reference,
                "float64 SVD",
                reference / seconds,
                f"s, {torch.get_num_threads()} threads",
                _REPEATS,
            )
        )
        leak = float((stack.double() @ space.basis.mT).abs().max() / stack.double().abs().max())
        rows.append(Row(f"sepme/null_space_leak/{size}", leak, None, "", None, f"max |A N|, {space.free} free", 1))
    four = prompts(12)
    together = best(lambda: free_spaces(four[0], four[1:7]))
    alone = best(
        lambda: [free_spaces(torch.cat([four[0], *four[1 : 1 + i], *four[2 + i : 7]]), [four[0][:0]]) for i in range(6)]
    )
    rows.append(
        Row("sepme/null_space_of_six_concepts", together, alone, "one at a time", alone / together, "s", _REPEATS)
    )
    return rows


def loop_over_layers(weights: list[Tensor], erased: Tensor, become: Tensor, kept: Tensor, ridge: float) -> list[Tensor]:
    """The formula of UCE as it is written: sums over tokens and one inverse in every layer."""
    found: list[Tensor] = []
    for weight in weights:
        first, second = ridge * weight, ridge * torch.eye(weight.shape[1], dtype=weight.dtype)
        for c, g in zip(erased, become, strict=True):
            first = first + (weight @ g)[:, None] @ c[None]
            second = second + c[:, None] @ c[None]
        for p in kept:
            first = first + (weight @ p)[:, None] @ p[None]
            second = second + p[:, None] @ p[None]
        found.append(first @ torch.linalg.inv(second))
    return found


def furthest(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Largest difference, relative to the largest weight of its layer."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


def uce_rows() -> list[Row]:
    """One map against a loop over 32 layers: three tokens to erase, ten to keep."""
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(rows, WIDTH, generator=rng) / WIDTH**0.5 for rows in OUTPUTS]
    erased, become = torch.randn(3, WIDTH, generator=rng), torch.randn(3, WIDTH, generator=rng)
    kept = torch.randn(10, WIDTH, generator=rng)

    def ours() -> list[Tensor]:
        found = edit(erased, become, kept, erase_scale=1.0, keep_scale=1.0, ridge=0.5)
        left, right = found.left.float(), found.right.float()
        return [torch.addmm(weight, weight @ left, right) for weight in weights]

    seconds = best(ours)
    started = time.perf_counter()
    wanted = loop_over_layers(weights, erased, become, kept, 0.5)
    reference = time.perf_counter() - started
    wide = [part.double() for part in (*weights, erased, become, kept)]
    exact = loop_over_layers(wide[:-3], *wide[-3:], 0.5)
    gap, loop_gap = (furthest(found, exact) for found in (ours(), wanted))
    return [
        Row("uce/speed", seconds, reference, "loop over layers", reference / seconds, "s for 32 layers", _REPEATS),
        Row("uce/max_difference", gap, loop_gap, "the loop in float32", loop_gap / gap, "from float64, relative", 32),
    ]


def counted_rows() -> list[Row]:
    """Forwards a sample, counted on the zoo's architecture; a backward pass counts two."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = new_tokenizer(Path(folder))
        base = TextToImage(assembled(new_vae(0), new_unet(0), new_text_encoder(tokenizer, 0), tokenizer))
    request = ConceptRequest(("outlined",), ("{}",))
    steps, batch, sampling = 6, 4, 25
    sepme = SepME(steps=steps, batch_size=batch, trajectories=1, sampling_steps=sampling, threshold=-9.0)
    (increment,) = sepme.erase(base, request)
    cost, samples = increment.manifest.cost, steps * batch
    step = cost["forwards_per_step"]
    drawn = step + cost["bank_forwards_per_sample"]
    rows = [
        Row("sepme/forwards_per_sample", drawn, 8, "the public loop", 8 / drawn, "forwards, bank used once", samples),
        Row("sepme/forwards_per_sample_with_the_bank", step, 8, "the public loop", 8 / step, "forwards", samples),
    ]
    (other,) = ESD(steps=2, batch_size=batch, trajectories=1, sampling_steps=sampling).erase(base, request)
    target = other.manifest.cost["bank_forwards_per_sample"]
    before = base.evaluations
    for row in range(sampling):  # a step drawn evenly from a trajectory is reached after half of them, on average
        base.latents(["outlined"], [row], 0, Drawing(DDIM(row + 1, clip=False), guidance=3.0))
    again = (base.evaluations - before) / sampling + 2
    unit = f"forwards a target, trajectories of {sampling} steps"
    rows.append(Row("esd/target_cost", target, again, "resampling", again / target, unit, sampling))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of digits-t2i; the comparison is left out without one")
    parser.add_argument("--judge", type=Path, help="weights of its judge, if not the zoo's")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the erasures")
    parser.add_argument("--draws", type=int, default=200, help="pictures a concept and seed")
    parser.add_argument("--methods", default="", help="some of the erasers, with commas between; all without it")
    parser.add_argument("--work", type=Path, default=Path("concepts-work"), help="keeps finished trials for resuming")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for concepts.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for part in (null_space_rows, uce_rows, counted_rows):
        rows += part()
        print(rows[-1], flush=True)
    if options.model is not None:
        only = [name for name in options.methods.split(",") if name]
        rows += concepts_compared.rows(options.model, options.judge, options.seeds, options.draws, options.work, only)
    write("concepts", "Concepts", rows, options.out)


if __name__ == "__main__":
    main()
