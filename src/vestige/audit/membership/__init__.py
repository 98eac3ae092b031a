"""Telling training images from others by how the model treats them."""
