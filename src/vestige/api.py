"""The Python interface in one place.

from vestige.api import audit, erase, verify

run = audit("my-ddpm/", data="train/", non_members="held-out/", out="run")
increment = erase("my-ddpm/", forget=run, retain="train/", out="increment")
check = verify("my-ddpm/", increment=increment, against=run, out="check")
print(check.record.verdict, check.record.reasons)
"""

from vestige.audit.attack import Attack
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.data.images import ImageSet
from vestige.data.load import load_images
from vestige.data.split import Split, hold_out, split
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.eraser import Eraser
from vestige.erase.increment import Increment
from vestige.jobs.audit import audit
from vestige.jobs.demo import demo
from vestige.jobs.erase import Erasure, erase
from vestige.jobs.increments import apply_increments, compose_increments, remove_increments
from vestige.jobs.policy import Policy, load_policy
from vestige.jobs.run import Run
from vestige.jobs.traces import Probe
from vestige.jobs.verify import verify
from vestige.models.adapters.diffusers import DiffusersDenoiser, from_pipeline, load_folder
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Denoiser, Prediction
from vestige.models.generator import SampleBank
from vestige.models.guidance import Guided
from vestige.models.oracle import EmpiricalDenoiser, MixtureDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM, DDPM, Heun, Spacing
from vestige.models.schedule import Cosine, DiscreteTable, RectifiedFlow, VarianceExploding, VariancePreserving
from vestige.record import Record, Verdict
from vestige.zoo import zoo_model

__all__ = [
    "DDIM",
    "DDPM",
    "Attack",
    "Cosine",
    "Denoiser",
    "DenoisingLoss",
    "DiffusersDenoiser",
    "DiscreteTable",
    "EmpiricalDenoiser",
    "EraseDiff",
    "Eraser",
    "Erasure",
    "FunctionDenoiser",
    "GenerateAndFilter",
    "Guided",
    "Heun",
    "ImageSet",
    "Increment",
    "MixtureDenoiser",
    "Policy",
    "Prediction",
    "Probe",
    "Record",
    "RectifiedFlow",
    "Run",
    "SampleBank",
    "Spacing",
    "Split",
    "VarianceExploding",
    "VariancePreserving",
    "Verdict",
    "apply_increments",
    "audit",
    "compose_increments",
    "demo",
    "erase",
    "from_pipeline",
    "gaussian_denoiser",
    "hold_out",
    "load_folder",
    "load_images",
    "load_policy",
    "remove_increments",
    "split",
    "verify",
    "zoo_model",
]
