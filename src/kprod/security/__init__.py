"""TLS settings and what their failures mean; SASL mechanisms and the exchange that carries them.

No sockets and no threads; only :mod:`kprod.security.oidc` asks another server, for tokens.
"""
