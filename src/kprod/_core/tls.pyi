import ssl

from typing_extensions import Self

class NotPossible(Exception): ...

def why_not() -> str: ...

class TlsStream:
    def __new__(cls, connection: ssl.SSLSocket) -> Self: ...
