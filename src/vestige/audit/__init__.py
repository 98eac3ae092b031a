"""Audit: what a model kept of its training data."""
