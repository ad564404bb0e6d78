"""Which addresses may callbacks reach?"""

import ipaddress
import random

import pytest

from services.api import addresses

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255",
    "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "2001:200::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip
REFUSED = [
    # IPv4: this network, private, provider's, this machine, link-local with metadata
    "0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200",  # noqa: S104 (refused)
    "127.0.0.1", "127.1.2.3", "127.255.255.255", "169.254.0.1", "169.254.169.254",
    "172.16.0.0", "172.17.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255",
    # IPv4: reserved, documentation, benchmarks, multicast, broadcast
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    # IPv4: public, but answered by a cloud's own machine
    "168.63.129.16", "::ffff:168.63.129.16",
    # IPv6: unspecified, this machine, link-local, unique local, site-local, multicast
    "::", "::1", "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "ff0e::1",
    # IPv6 with an IPv4 address inside: mapped, compatible, translated, NAT64, 6to4, Teredo
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:7f00:1",
    "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b::10.1.1.1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::",
    "2002:808:808::1", "2001:0:1::1", "2001:10::1", "2001:20::1",
    # IPv6: documentation, discard, not in use
    "2001:db8::1", "3fff::1", "100::1", "4000::1", "5f00::1", "e000::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_the_public_internet_may_be_called(text: str) -> None:
    assert addresses.refusal(ipaddress.ip_address(text), ()) is None


@pytest.mark.parametrize("text", REFUSED)
def test_all_else_may_not(text: str) -> None:
    why = addresses.refusal(ipaddress.ip_address(text), ())
    assert why is not None
    assert why.startswith(f"{ipaddress.ip_address(text)} is ")


def test_nothing_that_python_knows_as_not_global_is_let_through() -> None:
    chance = random.Random(7)
    made: list[addresses.Address] = [ipaddress.ip_address(text) for text in PUBLIC[:-1]]
    made += [ipaddress.IPv4Address(chance.getrandbits(32)) for _ in range(20_000)]
    made += [ipaddress.IPv6Address(chance.getrandbits(128)) for _ in range(20_000)]
    let = [one for one in made if addresses.refusal(one, ()) is None]
    assert len(let) > 15_000
    for one in let:
        inside = getattr(one, "ipv4_mapped", None) or one
        assert inside.is_global, one
        assert not inside.is_multicast, one


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.1.2.3", "192.168.0.0/16, 10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("64:ff9b::10.1.2.3", "10.0.0.0/8"),
        ("fd00::1", "fd00::/8"),
        ("::1", "::1"),
    ],
)
def test_a_listed_network_may_be_called(text: str, allowed: str) -> None:
    address = ipaddress.ip_address(text)
    assert addresses.refusal(address, addresses.networks(allowed)) is None
    assert addresses.refusal(address, addresses.networks("172.16.0.0/12")) is not None


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everything", "10.0.0.0/33", "10.0.0.0/8 fd00::/8"])
def test_a_list_of_networks_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=text[:8]):
        addresses.networks(text)


def test_names_are_no_addresses() -> None:
    assert addresses.parse("example.com") is None
    assert addresses.parse("2130706433") is None
    assert addresses.parse("fe80::1%eth0") == ipaddress.ip_address("fe80::1")
