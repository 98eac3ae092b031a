"""Erasing training images."""
