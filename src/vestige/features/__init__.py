"""Feature extractors: images to vectors, with a digest of weights and preprocessing."""
