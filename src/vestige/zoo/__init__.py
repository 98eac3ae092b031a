"""Small trained models that ship with the package, with the truth about their training data."""

from vestige.zoo.shelf import MODELS, Card, ZooModel, zoo_model

__all__ = ["MODELS", "Card", "ZooModel", "zoo_model"]
