"""CRC-32C from its definition: one bit at a time to make the table, one byte at a time after that."""

from __future__ import annotations

POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed (RFC 3720)


def _byte_remainder(byte: int) -> int:
    crc = byte
    for _ in range(8):
        crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
    return crc


_TABLE = [_byte_remainder(byte) for byte in range(256)]


def crc32c(data: bytes, value: int = 0) -> int:
    """The CRC of ``data``; ``value`` is the CRC of what comes before it."""
    crc = value ^ 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
