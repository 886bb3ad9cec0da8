"""TLS settings and what their failures mean, without sockets and threads."""
