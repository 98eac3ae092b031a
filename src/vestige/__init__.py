"""vestige: what a generative model kept of its training data, taken out and put back, with evidence.

The Python interface is :mod:`vestige.api`; importing ``vestige`` itself imports nothing heavy.
"""

__version__ = "0.1.0"
