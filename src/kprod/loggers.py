"""kprod's loggers for the modules that ``import kprod`` needs, where few of them ever have a message.

``import logging`` takes half as long as all of that, and an application that logs has it anyway.
"""

from __future__ import annotations

import logging

# A library is silent until the application configures logging.
logging.getLogger("kprod").addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """The logger of this name, below ``kprod``."""
    return logging.getLogger(name)
