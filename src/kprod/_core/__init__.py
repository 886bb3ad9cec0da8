"""The Cython core: record batches, accumulator, delivery futures and the network loop."""
