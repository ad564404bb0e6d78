"""From a request and a route to a call's messages."""

import pytest

from services.api import invocation, plans
from services.api.models import Route
from services.api.problems import TooLarge
from shared import environment, messages

LIMITS = invocation.Limits(environment_max_bytes=256 * 1024, capacity_wait_ms=30_000)


def a_route(**fields: object) -> Route:
    return Route(**{"app": "shop", "path": "/price", "image": "img", **fields})


def a_plan(route: Route, **app_config: str) -> plans.Plan:
    return plans.plan(app_config, route, "7")


def a_caller(**fields: object) -> invocation.Caller:
    given = {"method": "GET", "url": "http://h/r/shop/price", "headers": (), "payload": b""}
    return invocation.Caller(**{**given, **fields})


def seen(route: Route, caller: invocation.Caller, **app_config: str) -> dict[str, str]:
    """What the function's process will see: the runner lets the call's part win."""
    parcel = invocation.parcel("id-1", a_plan(route, **app_config), caller, LIMITS)
    return parcel.config_env | parcel.call_env


def test_the_environment_has_request_and_config() -> None:
    caller = a_caller(headers=[("X-Tier", "gold"), ("x-tier", "red"), ("Host", "h")])
    assert seen(a_route(config={"db-host": "r"}), caller, **{"db-host": "a", "B": "2"}) == {
        "METHOD": "GET",
        "ROUTE": "/price",
        "REQUEST_URL": "http://h/r/shop/price",
        "HEADER_X_TIER": "gold red",
        "DB_HOST": "r",
        "B": "2",
        "CALL_ID": "id-1",
        "APP_NAME": "shop",
    }


def test_config_wins_over_request_and_headers_over_config() -> None:
    config = {"method": "mine", "header-x": "config", "route": "r", "request-url": "u"}
    env = seen(a_route(config=config), a_caller(headers=[("X", "header")]))
    assert env["METHOD"] == "mine"
    assert env["ROUTE"] == "r"
    assert env["REQUEST_URL"] == "u"
    assert env["HEADER_X"] == "header"


def test_nobody_overrides_the_platforms_own() -> None:
    env = seen(a_route(config={"call-id": "forged", "APP_NAME": "forged"}), a_caller())
    assert env["CALL_ID"] == "id-1"
    assert env["APP_NAME"] == "shop"


def test_a_too_large_environment_names_its_limit() -> None:
    caller = a_caller(headers=[("X", "x" * LIMITS.environment_max_bytes)])
    with pytest.raises(TooLarge, match=r"262144 \(ENVIRONMENT_MAX_BYTES\)"):
        invocation.parcel("id", a_plan(a_route()), caller, LIMITS)


def test_an_environment_of_just_its_limit_fits() -> None:
    plan, caller = a_plan(a_route(config={"A": "é" * 1000})), a_caller(headers=[("X", "é")])
    parcel = invocation.parcel("id", plan, caller, LIMITS)
    taken = sum(
        len(f"{k}={v}\0".encode()) for k, v in (parcel.config_env | parcel.call_env).items()
    )
    exact = LIMITS._replace(environment_max_bytes=taken)
    assert invocation.parcel("id", plan, caller, exact) == parcel
    with pytest.raises(TooLarge):
        invocation.parcel("id", plan, caller, LIMITS._replace(environment_max_bytes=taken - 1))


def test_what_a_header_overrides_is_not_counted() -> None:
    big = "x" * 100_000
    plan = a_plan(a_route(config={"HEADER_X": big, "HEADER_Y": big}))
    caller = a_caller(headers=[("X", big), ("Y", big)])
    parcel = invocation.parcel("id", plan, caller, LIMITS)
    assert parcel.call_env["HEADER_X"] == big


def test_a_variable_that_no_process_can_have_is_the_callers_fault_not_exit_code_1() -> None:
    caller = a_caller(headers=[("X", "x" * environment.VARIABLE_MAX_BYTES)])
    with pytest.raises(TooLarge, match=r"^HEADER_X in the environment .* 131072 bytes"):
        invocation.parcel("id", a_plan(a_route()), caller, LIMITS)


def test_a_sync_call_has_a_deadline_and_an_async_one_has_none() -> None:
    now = a_plan(a_route(timeout=5))
    sync = invocation.head("i", now, accepted_ms=1000, reply_to="a", limits=LIMITS)
    assert (sync.wait_until_ms, sync.deadline_ms, sync.reply_to) == (31_000, 36_000, "a")
    later = a_plan(a_route(type="async", timeout=7))
    queued = invocation.head("i", later, accepted_ms=1000, reply_to="a", limits=LIMITS)
    assert (queued.wait_until_ms, queued.deadline_ms, queued.reply_to) == (0, 0, "")
    assert queued.timeout_ms == 7000


@pytest.mark.parametrize(
    ("route_format", "expected"),
    [
        ("default", ()),
        ("http", ()),
        ("json", (("X-A", "1"), ("x-a", "2"))),
        ("http-stream", (("X-A", "1"), ("x-a", "2"))),
    ],
)
def test_some_formats_get_the_headers_as_they_came(
    route_format: messages.Format, expected: tuple[tuple[str, str], ...]
) -> None:
    plan = a_plan(a_route(format=route_format, idle_timeout=9))
    caller = a_caller(headers=[("X-A", "1"), ("x-a", "2")])
    parcel = invocation.parcel("id", plan, caller, LIMITS)
    assert (parcel.headers, parcel.url) == (expected, "http://h/r/shop/price")
    assert parcel.call_env["HEADER_X_A"] == "1 2"
    assert parcel.idle_timeout_s == 9


def test_a_record_of_a_queued_call_knows_when_it_came() -> None:
    head = invocation.head("i", a_plan(a_route()), accepted_ms=1000, reply_to="a", limits=LIMITS)
    record = invocation.queued_record(head)
    assert (record.status, record.queued_ms, record.app) == ("queued", 1000, "shop")
    assert messages.decode(messages.encode(record), messages.Record) == record


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "http://api:8080/r/a/b?c=d%20e"),
        ({"X-Forwarded-Proto": "https"}, "https://api:8080/r/a/b?c=d%20e"),
        ({"X-Forwarded-Proto": "gopher"}, "http://api:8080/r/a/b?c=d%20e"),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "faas.example, inner"},
            "https://faas.example/r/a/b?c=d%20e",
        ),
    ],
)
def test_the_request_url_is_the_callers(headers: dict[str, str], expected: str) -> None:
    assert invocation.request_url("http", "api:8080", "/r/a/b?c=d%20e", headers) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", b""),
        ("payload", b""),
        ("x=1", b""),
        ("xpayload=1", b""),
        ("payload=a%2Bb+c", b"a+b c"),
        ("payload=%00%ff&payload=2", b"\x00\xff"),
        ("payload=a=b", b"a=b"),
        ("payload=%zz", b"%zz"),
    ],
)
def test_a_querys_payload_is_bytes(query: str, expected: bytes) -> None:
    assert invocation.query_payload(query) == expected


def test_a_header_that_is_no_utf8_can_still_be_sent_on() -> None:
    raw = b"\xe9t\xe9".decode("utf-8", "surrogateescape")
    assert invocation.clean(raw) == "été"
    assert invocation.clean("日本") == "日本"
