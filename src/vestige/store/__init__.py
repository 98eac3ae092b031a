"""Append-only results on disk, keyed by what made them."""

from vestige.store.shards import Column, Store
from vestige.store.write import write_bytes, write_text

__all__ = ["Column", "Store", "write_bytes", "write_text"]
