"""Proof that kprod can stand in for other clients: their own tests, run against it."""
