"""Which addresses a request may go to: public ones, and nothing that leads back inside by another spelling.

An own table, not `ipaddress.is_global`: what that says has changed between patch releases of Python. From the IANA
special-purpose registries (RFC 6890 and later), multicast, every form that carries an IPv4 address inside, and the one
public address behind which a cloud answers its guests (Azure's 168.63.129.16; the others' are link-local or private).
Of IPv6 only 2000::/3 is given out as global addresses (RFC 4291, 2.4): the rest leads nowhere, or into an overlay.
"""

from __future__ import annotations

import ipaddress
import socket

_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20",
    )
)  # fmt: skip
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_ISATAP = 0x5EFE
"""RFC 5214, 6.1: what stands before an IPv4 address in an interface's identifier, but for two bits."""


class AddressRefusedError(Exception):
    """A host's name leads to an address that is not a public one."""


def is_public(text: str) -> bool:
    """Whether this is the address of a host on the public Internet."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and (
        address.scope_id or address not in _GLOBAL_IPV6 or int(address) >> 32 & 0xFCFF_FFFF == _ISATAP
    ):
        return False
    return not any(address.version == network.version and address in network for network in _NETWORKS)


def resolve(host: str, port: int, *, loopback: bool) -> str:
    """The address to connect to: the first of the host's, if all of them are public.

    `loopback`: if all of them are this machine instead; for development. Raises `AddressRefusedError`, `OSError`.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    good = _is_loopback if loopback else is_public
    if not found or not all(map(good, found)):
        raise AddressRefusedError
    return found[0]


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
