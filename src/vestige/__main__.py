"""``python -m vestige`` is ``vestige``."""

from vestige.cli import main

main()
