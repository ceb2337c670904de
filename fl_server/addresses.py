"""Addresses of this machine, and how they are written. `fl-server start` detects with it what its certificate must hold.

The kernel is asked; no packet is sent.
"""

import ipaddress
import socket
from pathlib import Path

IPV6 = Path("/proc/net/if_inet6")
"""Where Linux lists the IPv6 addresses of all interfaces."""


def own_addresses(ipv6: Path = IPV6) -> list[str]:
    """Addresses of this machine's interfaces, IPv4 first; without those that hold on one link alone (fe80::/10)."""
    return [*_ipv4(), *_ipv6(ipv6)]


def every_address() -> str:
    """What to listen on for all of them: `::` takes IPv4 as well, where the system has IPv6."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"


def is_every(host: str) -> bool:
    """Whether who listens on `host` listens on all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def likely_address(known: list[str]) -> str:
    """By which of them other machines are most likely to reach this one; 127.0.0.1 where there is no network."""
    return next((address for address in known if not ipaddress.ip_address(address).is_loopback), "127.0.0.1")


def with_port(address: str, port: int) -> str:
    """Both in one word; an IPv6 address is put in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _ipv4() -> list[str]:
    import fcntl
    import struct

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asker, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                found.append(socket.inet_ntoa(answer[20:24]))
            except OSError:
                continue
    return found


def _ipv6(listing: Path) -> list[str]:
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return []
    addresses = [ipaddress.IPv6Address(int(line.split()[0], 16)) for line in lines]
    return [str(address) for address in addresses if not address.is_link_local]
