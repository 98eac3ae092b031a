"""The Python interface in one place.

from vestige.api import audit, erase, verify

run = audit("my-ddpm/", data="train/", non_members="held-out/", out="run")
increment = erase("my-ddpm/", forget=run, retain="train/", out="increment")
check = verify("my-ddpm/", increment=increment, against=run, out="check")
print(check.record.verdict, check.record.reasons)
"""

from vestige.audit.attack import Attack
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.extraction.inpainting import Inpainting
from vestige.audit.extraction.side import SIDE
from vestige.audit.membership.augmented_loss import AugmentedLoss
from vestige.audit.membership.canary_exposure import CanaryExposure
from vestige.audit.membership.clid import CLiD
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.audit.membership.discriminator_loss import DiscriminatorLoss
from vestige.audit.membership.lira import LiRA
from vestige.audit.membership.pia import PIA
from vestige.audit.membership.quantile_regression import QuantileRegression
from vestige.audit.membership.secmi import SecMI
from vestige.audit.membership.sima import SimA
from vestige.data.images import ImageSet
from vestige.data.load import load_images
from vestige.data.prompts import PromptSet, load_prompts
from vestige.data.split import Split, hold_out, split
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.guarded_sepme import GuardedSepME
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.data.erasediff import EraseDiff
from vestige.erase.data.unseen_level import UnseenLevel
from vestige.erase.eraser import Eraser
from vestige.erase.increment import Increment
from vestige.erase.ledger import Ledger
from vestige.erase.loop import Loop
from vestige.fingerprint.card import Fingerprint, Plan
from vestige.fingerprint.compare import Comparison, Judge, Lineage
from vestige.fingerprint.portrait.code import VectorCode
from vestige.fingerprint.portrait.painter import Painter
from vestige.jobs.audit import audit
from vestige.jobs.bench_erase import bench_erase
from vestige.jobs.compare import compare
from vestige.jobs.concept_matrix import concept_matrix
from vestige.jobs.concept_recovery import attack_concepts
from vestige.jobs.concepts import Erasures, erase_concepts
from vestige.jobs.convert import convert
from vestige.jobs.demo import demo
from vestige.jobs.erase import Erasure, erase
from vestige.jobs.fingerprint import Fingerprinted, fingerprint
from vestige.jobs.fingerprint_compare import Compared, compare_weights
from vestige.jobs.geometry import geometry
from vestige.jobs.increments import apply_increments, compose_increments, remove_increments
from vestige.jobs.ledger import Replay, apply_ledger, describe_ledger, replay_ledger, withdraw_increment
from vestige.jobs.lineage import Scan, scan_lineage
from vestige.jobs.lineage_registry import Registry
from vestige.jobs.metrics import metrics
from vestige.jobs.policy import Policy, load_policy
from vestige.jobs.prepare import deduplicate, insert_canaries
from vestige.jobs.prompts import audit_prompts
from vestige.jobs.prove import (
    Scope,
    Shown,
    prove_answer,
    prove_challenge,
    prove_commit,
    prove_manifest,
    prove_rows,
    verify_answer,
    verify_manifest,
    verify_rows,
)
from vestige.jobs.rare import rare
from vestige.jobs.run import Run
from vestige.jobs.shadow import shadow
from vestige.jobs.study import study
from vestige.jobs.study_plan import StudyPlan, load_plan
from vestige.jobs.traces import Probe
from vestige.jobs.verify import verify
from vestige.models.adapters.diffusers import DiffusersDenoiser, from_pipeline, load_folder
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.adapters.gan import GanGenerator, load_gan, load_weights
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.models.critic import Critic
from vestige.models.denoiser import Denoiser, Prediction
from vestige.models.generator import SampleBank
from vestige.models.guidance import Guided
from vestige.models.latent import LatentGenerator
from vestige.models.latent_diffusion import few_step_generator
from vestige.models.network import PixelRange
from vestige.models.oracle import EmpiricalDenoiser, MixtureDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM, DDPM, Heun, Spacing
from vestige.models.schedule import Cosine, DiscreteTable, RectifiedFlow, VarianceExploding, VariancePreserving
from vestige.models.shadows import Shadows
from vestige.models.subject import Subject
from vestige.models.transformer.open import open_transformer
from vestige.rare.objective import Controls, DivRareGen, RareSearch
from vestige.record import Record, Verdict
from vestige.train.recipe import Augmentation, Recipe
from vestige.zoo import zoo_model

__all__ = [
    "DDIM",
    "DDPM",
    "PIA",
    "SIDE",
    "Attack",
    "Augmentation",
    "AugmentedLoss",
    "CLiD",
    "CanaryExposure",
    "Compared",
    "Comparison",
    "ConceptEraser",
    "ConceptRequest",
    "Controls",
    "Cosine",
    "Critic",
    "Denoiser",
    "DenoisingLoss",
    "DiffusersDenoiser",
    "DiscreteTable",
    "DiscriminatorLoss",
    "DivRareGen",
    "Drawing",
    "EmpiricalDenoiser",
    "EraseDiff",
    "Eraser",
    "Erasure",
    "Erasures",
    "Fingerprint",
    "Fingerprinted",
    "FunctionDenoiser",
    "GanGenerator",
    "GenerateAndFilter",
    "GuardedSepME",
    "Guided",
    "Heun",
    "ImageSet",
    "Increment",
    "Inpainting",
    "Judge",
    "LatentGenerator",
    "Ledger",
    "LiRA",
    "Lineage",
    "Loop",
    "MixtureDenoiser",
    "Painter",
    "PixelRange",
    "Plan",
    "Policy",
    "Prediction",
    "Probe",
    "PromptSet",
    "QuantileRegression",
    "RareSearch",
    "Recipe",
    "Record",
    "RectifiedFlow",
    "Registry",
    "Replay",
    "Run",
    "SampleBank",
    "Scan",
    "Scope",
    "SecMI",
    "SepME",
    "Shadows",
    "Shown",
    "SimA",
    "Spacing",
    "Split",
    "StudyPlan",
    "Subject",
    "TextToImage",
    "UnseenLevel",
    "VarianceExploding",
    "VariancePreserving",
    "VectorCode",
    "Verdict",
    "apply_increments",
    "apply_ledger",
    "attack_concepts",
    "audit",
    "audit_prompts",
    "bench_erase",
    "compare",
    "compare_weights",
    "compose_increments",
    "concept_matrix",
    "convert",
    "deduplicate",
    "demo",
    "describe_ledger",
    "erase",
    "erase_concepts",
    "few_step_generator",
    "fingerprint",
    "from_pipeline",
    "gaussian_denoiser",
    "geometry",
    "hold_out",
    "insert_canaries",
    "load_folder",
    "load_gan",
    "load_images",
    "load_plan",
    "load_policy",
    "load_prompts",
    "load_text_to_image",
    "load_weights",
    "metrics",
    "open_transformer",
    "prove_answer",
    "prove_challenge",
    "prove_commit",
    "prove_manifest",
    "prove_rows",
    "rare",
    "remove_increments",
    "replay_ledger",
    "scan_lineage",
    "shadow",
    "split",
    "study",
    "verify",
    "verify_answer",
    "verify_manifest",
    "verify_rows",
    "withdraw_increment",
    "zoo_model",
]
