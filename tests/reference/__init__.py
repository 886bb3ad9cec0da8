"""Kafka's formats once more: slow, obvious, pure Python, written from the specifications.

The tests hold the core against these. Nothing in here imports kprod, and nothing is shared with it.
"""
