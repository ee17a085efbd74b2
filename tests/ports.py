"""Ports for servers that must know theirs before they start."""

import random
import socket

# Below those that systems give to connections: none takes the port before its server does.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a loopback port that nobody listens on at the moment."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
