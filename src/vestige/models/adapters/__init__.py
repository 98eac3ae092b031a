"""Adapters: what turns somebody's model into a denoiser."""
