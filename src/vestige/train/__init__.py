"""Training small diffusion models whose every row is known: shadow models, studies, references."""
