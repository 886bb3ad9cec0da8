"""Writes a line to the file FRAMEWORKS_WITNESS for each producer of kprod that this process makes."""

import os

from kprod.engine.engine import Engine

_init = Engine.__init__


def witnessed(self, config, **keywords):
    _init(self, config, **keywords)
    with open(os.environ["FRAMEWORKS_WITNESS"], "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {config.client_id}\n")


Engine.__init__ = witnessed
