"""Microbenchmarks of the core: ``python -m pytest bench/micro --benchmark-only``."""
