"""Tests of kprod. A package, so that ``tests.kafka`` never shadows kafka-python's ``kafka``."""
