"""What a search is compared with: ways to rare samples that need no gradient, at the same cost."""
