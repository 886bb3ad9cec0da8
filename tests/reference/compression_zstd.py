"""``compression.zstd`` for Pythons before 3.14: the same module, from the package backports.zstd.

After an import of this module, ``import compression.zstd`` works where one of the two is there.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

try:
    importlib.import_module("compression.zstd")
except ImportError:
    try:
        _backport = importlib.import_module("backports.zstd")
    except ImportError:
        pass
    else:
        sys.modules["compression"] = _package = ModuleType("compression")
        sys.modules["compression.zstd"] = _backport
        _package.zstd = _backport  # type: ignore[attr-defined]
