"""The address of sentinels: what is taken, and what is said of what is not."""

import doctest

import pytest

from services.scheduler.settings import Settings
from shared import backoff, errors, masters, urls
from shared.settings import read


def test_worked_examples_hold() -> None:
    result = doctest.testmod(masters)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_part_of_an_address_of_sentinels() -> None:
    url = (
        "redis+sentinel://u:p%40w@a:1,[::1]:26380,c/main/3?sentinel_username=s&sentinel_password=t"
    )
    assert urls.parse_sentinels(url) == urls.Sentinels(
        (urls.Address("a", 1), urls.Address("::1", 26380), urls.Address("c", 26379)),
        master="main",
        db=3,
        username="u",
        password="p@w",
        sentinel_username="s",
        sentinel_password="t",
    )


def test_a_password_alone_is_the_default_users() -> None:
    found = urls.parse_sentinels("redis+sentinel://:secret@a/main")
    assert (found.username, found.password, found.db) == ("", "secret", 0)


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("a:26379", "master's name comes after the hosts, as the sentinels have it: it is missing"),
        ("a,b/", "it is missing"),
        ("a/my name", "not 'my name'"),
        ("a:0/main", "each sentinel must be host or host:port, with commas between, not 'a:0'"),
        ("a:x/main", "not 'a:x'"),
        ("a:70000/main", "not 'a:70000'"),
        ("a,,b/main", "not ''"),
        ("/main", "not ''"),
        ("a b/main", "not 'a b'"),
        ("a/main/x", "the database after the master's name must be a number, not 'x'"),
        ("a/main?sentinel_pasword=secret", "sentinel_password, not 'sentinel_pasword'"),
    ],
)
def test_what_is_wrong_with_an_address_of_sentinels_is_named(rest: str, said: str) -> None:
    with pytest.raises(errors.BadSettings) as raised:
        read(Settings, {"MQ_URL": f"redis+sentinel://u:hidden@{rest}"})
    assert "MQ_URL='redis+sentinel://u:***@" in raised.value.message
    assert said in raised.value.message
    assert "hidden" not in raised.value.message


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediss+cluster", "REDIS+CLUSTER"])
def test_a_cluster_is_refused_with_the_reason(scheme: str) -> None:
    with pytest.raises(ValueError, match=r"Redis Cluster is not supported: .* one hash tag"):
        urls.check_redis(f"{scheme}://a:6379,b:6379")


def test_sentinels_over_tls_are_refused_plainly() -> None:
    with pytest.raises(ValueError, match="Sentinel over TLS is not supported"):
        urls.check_redis("rediss+sentinel://a/main")


def test_passwords_of_sentinels_are_not_shown() -> None:
    url = "redis+sentinel://u:hidden@a/main?sentinel_username=s&sentinel_password=hidden"
    assert urls.without_password(url) == (
        "redis+sentinel://u:***@a/main?sentinel_username=s&sentinel_password=***"
    )


def test_pauses_grow_to_the_longest_and_start_anew() -> None:
    pauses = backoff.Backoff(0.1, 1.0)
    for most in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        assert most / 2 <= pauses.next_s() <= most
    pauses.reset()
    assert pauses.next_s() <= 0.1
