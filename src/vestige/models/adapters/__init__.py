"""Adapters: what turns somebody's model into a denoiser."""

from vestige.dependencies import require_working_dependencies

# Before any adapter imports diffusers, which fails deep inside where torchvision is broken.
require_working_dependencies()
