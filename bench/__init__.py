"""Benchmarks of kprod: parts of the core (``bench/micro``) and the comparison with other clients."""
