"""Language models as the matrices of their blocks: what every architecture has in common, by its name in the field."""
