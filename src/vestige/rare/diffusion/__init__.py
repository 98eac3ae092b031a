"""Rare samples from diffusion models: other ways to draw, and the search over the noise that a sampler starts from."""
