"""Transactions (KIP-98, KIP-360, KIP-447, KIP-588, KIP-890). Nothing here does input or output."""
