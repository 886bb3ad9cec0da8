"""``python -m kprod`` is the ``kprod`` command."""

import sys

from kprod.cli import main

if __name__ == "__main__":
    sys.exit(main())
