"""Which addresses may the platform call on a caller's word? Pure: no names are looked up here.

Only those of the public internet, and networks that the operator lists; a caller must not reach by
us what he could not reach himself: this machine, the networks around it, a cloud's metadata.
What an IPv6 address carries inside (IPv4-mapped, NAT64) is judged as what it leads to.
"""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What is not the public internet, and what it is (RFC 6890 and IANA's registries); and the one
#: public address at which a cloud (Azure) has what others have at link-local ones.
_REFUSED_4: dict[str, str] = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "a private network",
    "100.64.0.0/10": "a provider's own network",
    "127.0.0.0/8": "this machine",
    "168.63.129.16/32": "a cloud's own service",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "a private network",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.88.99.0/24": "a 6to4 relay",
    "192.168.0.0/16": "a private network",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_REFUSED_6: dict[str, str] = {
    "::/128": "unspecified",
    "::1/128": "this machine",
    "fc00::/7": "a private network",
    "fe80::/10": "link-local",
    "fec0::/10": "a private network",
    "ff00::/8": "multicast",
    "2001::/23": "reserved (with Teredo and ORCHID)",
    "2001:db8::/32": "for documentation",
    "2002::/16": "6to4",
    "3fff::/20": "for documentation",
}
#: Of IPv6, only this is in use at all.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), what)
    for table in (_REFUSED_4, _REFUSED_6)
    for network, what in table.items()
)
_IPV4_BITS = 0xFFFF_FFFF


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks in a list with commas between. Raises ValueError, which names the wrong.

    >>> networks("10.0.0.0/8, fd00::/8")
    (IPv4Network('10.0.0.0/8'), IPv6Network('fd00::/8'))
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def parse(text: str) -> Address | None:
    """Return an address written down, with or without the scope of IPv6; None for a name."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def refusal(address: Address, allowed: Iterable[Network]) -> str | None:
    """Return why an address may not be called; None if it may.

    >>> refusal(ipaddress.ip_address("169.254.169.254"), ())
    '169.254.169.254 is link-local'
    >>> refusal(ipaddress.ip_address("::ffff:10.1.2.3"), networks("10.0.0.0/8"))
    """
    meant = _meant(address)
    if any(meant in network for network in allowed):
        return None
    for network, what in _NOT_PUBLIC:
        if meant in network:
            return f"{address} is {what}"
    if isinstance(meant, ipaddress.IPv6Address) and meant not in _GLOBAL_6:
        return f"{address} is not of the public internet"
    return None


def _meant(address: Address) -> Address:
    """Return the address that is reached in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _IPV4_BITS)
    return address
