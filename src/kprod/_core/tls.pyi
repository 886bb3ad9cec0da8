import ssl
from typing import final

from typing_extensions import Self

class NotPossible(Exception): ...

def why_not() -> str: ...

@final
class TlsStream:
    def __new__(cls, connection: ssl.SSLSocket) -> Self: ...
