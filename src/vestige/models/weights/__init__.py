"""Named tensors of any model, read one at a time from files that are never executed."""

from vestige.models.weights.choose import open_weights
from vestige.models.weights.files import FileWeights
from vestige.models.weights.memory import MemoryWeights
from vestige.models.weights.source import Entry, WeightSource

__all__ = ["Entry", "FileWeights", "MemoryWeights", "WeightSource", "open_weights"]
