"""Taking concepts out of text-to-image models, each as an increment of its own that can be put back."""
