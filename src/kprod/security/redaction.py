"""What others write, such as brokers and token endpoints in errors, without the secrets they were sent."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from typing import Final
from urllib.parse import quote, quote_plus

HIDDEN: Final = "<hidden>"

_SHORTEST: Final = 4
"""Shorter secrets are left alone: they are parts of ordinary words, and show nothing there."""


def without_secrets(text: str, *secrets: str | None) -> str:
    """The text with :data:`HIDDEN` instead of each secret, also where it is encoded as base64 or for a URL.

    Args:
        text: what somebody else has written.
        secrets: what that may not show.
    """
    forms: set[str] = set()
    for secret in secrets:
        if secret is None or len(secret) < _SHORTEST:
            continue
        data = secret.encode("utf-8", "surrogatepass")
        plain = b64encode(data).decode().rstrip("=")
        url_safe = urlsafe_b64encode(data).decode().rstrip("=")
        forms |= {secret, quote(data, safe=""), quote_plus(data), plain, url_safe}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text
