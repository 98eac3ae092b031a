"""One file a family of architectures, each with what config.json calls them."""
