"""Recovering training images from a generator."""
