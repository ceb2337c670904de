"""Places that one peer, and all peers together, may hold at a time: connections, enrolments, uploads.

Whatever listens to the network counts with these.
"""

import ipaddress
import threading
from collections import Counter
from urllib.parse import unquote


class Seats:
    """Counts who holds how many places; safe among threads.

    Args:
        most: places in all.
        each: that one holder may have.
    """

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._held: Counter[str] = Counter()
        self._taken = 0
        self._guard = threading.Lock()

    def take(self, who: str) -> bool:
        """Whether there was a place for `who`, which is now taken."""
        with self._guard:
            if self._taken >= self._most or self._held[who] >= self._each:
                return False
            self._held[who] += 1
            self._taken += 1
            return True

    def leave(self, who: str) -> None:
        """Give back a place that `take` gave."""
        with self._guard:
            self._taken -= 1
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]


def network_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 network of 64 bits; any other text is itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if address.version == 6 else None
    if mapped is not None or address.version == 4:
        return str(mapped or address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def host_of(peer: str) -> str:
    """The address in gRPC's name for a peer, such as ipv4:192.0.2.1:5000 or ipv6:%5B2001:db8::1%5D:5000."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]") or peer
