"""Densities of features: how likely a generation is under the real data, differentiable in its features."""
