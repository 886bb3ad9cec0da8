"""Secrets are in no output: everything that a program at its most verbose writes and shows is searched."""
