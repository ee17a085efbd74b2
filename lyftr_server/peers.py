"""Who asks: the address of a client behind proxies, and the names under which reads are served."""

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

# A proxy may add the port that a client came from.
_HOP = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|(.*)")
# More hops than this are a pretence.
_MAX_HOPS = 16
_PORT = re.compile(r":[0-9]*$")


class Proxies:
    """The proxies whose X-Forwarded-For counts."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted

    @property
    def any(self) -> bool:
        return bool(self._trusted)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Return who asked: the peer, or the nearest hop before it that no trusted proxy is.

        What stands further to the left may be anybody's invention.
        """
        if not self._trusted or not forwarded_for or not self._trusts(peer):
            return peer
        client = peer
        for hop in reversed(forwarded_for.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            address = _address(hop)
            if address is None:
                break
            client = address
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def _address(hop: str) -> str | None:
    """Return the address in a hop of X-Forwarded-For in its one form; None when it has none."""
    match = _HOP.fullmatch(hop.strip())
    if match is None:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


class Names:
    """The names that may stand in Host of a read; None: any.

    A page of another site whose name was made to lead here (DNS rebinding) still sends its own.
    """

    def __init__(self, allowed: Collection[str] | None) -> None:
        self._allowed = None if allowed is None else frozenset(map(_bare, allowed))

    def allow(self, host: str) -> bool:
        """Tell whether a read with this Host (perhaps with a port, or empty) is served."""
        # Without a Host nobody was led here by a name: browsers always send one.
        return self._allowed is None or not host or _bare(host) in self._allowed


def names_of(allowed: Sequence[str], loopback: bool, protected: bool) -> Names:
    """Return what ALLOWED_HOSTS means for a server that listens there, behind a token or not."""
    if loopback and not protected:
        return Names(LOOPBACK_NAMES | set(allowed))
    return Names(allowed or None)


def _bare(host: str) -> str:
    return _PORT.sub("", host.lower()).removesuffix(".")
