"""What all calls of a route have in common, and which routes share a sandbox."""

from typing import Any

import pytest

from services.api import plans
from services.api.models import Route
from shared import messages


def a_route(**fields: Any) -> Route:
    return Route(**{"app": "shop", "path": "/price", "image": "img", **fields})


def key(app_config: dict[str, str] | None = None, **fields: Any) -> str:
    return plans.plan(app_config or {}, a_route(**fields), "3").head.sandbox_key


def test_a_plan_knows_the_route() -> None:
    route = a_route(
        format="http", isolation="call", max_concurrency=8, min_sandboxes=2, config={"a-b": "1"}
    )
    plan = plans.plan({"A_B": "0", "C": "2"}, route, "12")
    assert (plan.head.format, plan.head.isolation) == ("http", "call")
    assert (plan.head.max_concurrency, plan.head.revision) == (8, 12)
    assert plan.config_env == {"A_B": "1", "C": "2"}
    assert plans.wanted(plan) == messages.Wanted(
        app="shop",
        path="/price",
        image="img",
        memory_mb=128,
        cpus=1.0,
        format="http",
        isolation="call",
        max_concurrency=8,
        sandbox_key=plan.head.sandbox_key,
        revision=12,
        config_env={"A_B": "1", "C": "2"},
        idle_timeout_s=30,
        min_sandboxes=2,
    )


def test_a_process_for_each_call_has_no_limit_of_its_own() -> None:
    assert (
        plans.plan({}, a_route(format="default", max_concurrency=8), "0").head.max_concurrency == 0
    )


@pytest.mark.parametrize(
    "other",
    [
        {"app": "shop2"},
        {"path": "/price2"},
        {"image": "img:2"},
        {"memory": 256},
        {"cpus": 0.5},
        {"format": "http"},
        {"isolation": "call"},
        {"config": {"A": "1"}},
        {"app": "shop/price", "path": "/"},
    ],
)
def test_what_a_sandbox_is_made_of_has_its_own_key(other: dict[str, Any]) -> None:
    assert key(**other) != key()


def test_what_a_sandbox_is_not_made_of_leaves_the_key() -> None:
    same = {"timeout": 5, "idle_timeout": 5, "min_sandboxes": 5, "headers": {"A": ["1"]}, "cpus": 1}
    assert key(**same) == key()
    assert key({"B": "2"}, config={"A": "1"}) == key({"A": "1"}, config={"b": "2"})


def test_a_key_is_the_same_on_every_replica() -> None:
    assert key() == "27b30363754838ac598238965142d286"
