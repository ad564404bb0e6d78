"""What does a call see of an earlier one, and how do sandboxes come and go?"""

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench import echoes
from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.images import docker

Image = Callable[[str], str]
#: Says what an earlier call left, and leaves something.
DIARY = "cat /tmp/diary 2>/dev/null; echo $CALL_ID >> /tmp/diary; (sleep 1000 &) ; exit 0"


async def sandboxes(client: Client, app: str) -> dict[str, int]:
    """Return how many sandboxes of an app there are, by their state."""
    runners = (await client.get("/v1/runners")).json()["runners"]
    of_app = [s for runner in runners for s in runner["sandboxes"] if s["app_name"] == app]
    return {state: sum(s[state] for s in of_app) for state in ("idle", "busy", "starting")}


async def test_a_sandbox_is_used_again_and_its_files_are_seen(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(DIARY))
    first = await client.post(path)
    second = await client.post(path)
    assert first.text == ""
    assert second.text == f"{first.call_id}\n"


async def test_isolation_by_call_shows_nothing_of_an_earlier_call(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(DIARY), isolation="call")
    for _ in range(6):
        answer = await client.post(path)
        assert (answer.status, answer.text) == (200, "")


async def test_a_call_leaves_no_process_to_the_next(
    client: Client, app: str, function_image: Image
) -> None:
    script = "set -- /proc/[0-9]*; echo $#; (sleep 1000 >/dev/null 2>&1 &); exit 0"
    path = await client.deploy(app, "/x", function_image(script))
    counts = [(await client.post(path)).text for _ in range(4)]
    assert len(set(counts)) == 1, counts


async def test_a_sandbox_that_is_not_used_goes(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("cat"), idle_timeout=1)
    await client.post(path, data=b"x")

    async def none_left() -> bool:
        return not any((await sandboxes(client, app)).values())

    await eventually(none_left, 30)


async def test_sandboxes_are_kept_ready_before_any_call(
    client: Client, app: str, function_image: Image
) -> None:
    image = function_image("cat")
    await client.deploy(app, "/x", image, min_sandboxes=2, idle_timeout=1)

    async def two_idle() -> bool:
        return (await sandboxes(client, app))["idle"] == 2

    await eventually(two_idle, 30)
    answer = await client.post(f"/r/{app}/x", data=b"warm")
    assert answer.text == "warm"
    await eventually(two_idle, 30)
    await client.delete(f"/v1/apps/{app}/routes/x")

    async def none_left() -> bool:
        return not any((await sandboxes(client, app)).values())

    await eventually(none_left, 30)


async def test_a_changed_route_is_in_force_at_once_and_fails_no_call(
    client: Client, app: str, function_image: Image
) -> None:
    """Also while calls of the old one run."""
    path = await client.deploy(
        app, "/x", function_image('echo "$KEY"; sleep 0.2'), config={"KEY": "0"}
    )
    slow = [asyncio.create_task(client.post(path)) for _ in range(4)]
    for number in range(1, 5):
        changed = {"route": {"config": {"KEY": str(number)}}}
        assert (await client.patch(f"/v1/apps/{app}/routes/x", json=changed)).status == 200
        assert (await client.post(path)).text == f"{number}\n"
    answers = [await task for task in slow]
    assert {answer.status for answer in answers} == {200}


async def test_a_burst_on_a_cold_route_is_answered_by_few_sandboxes(
    client: Client, app: str
) -> None:
    path = await client.deploy(app, "/x", await echoes.image("default"))
    bodies = [f"{number}".encode() for number in range(64)]
    answers = await asyncio.gather(*(client.post(path, data=body) for body in bodies))
    assert [answer.body for answer in answers] == bodies
    assert sum((await sandboxes(client, app)).values()) <= 16


async def test_idle_sandboxes_give_way_when_memory_is_needed(
    new_platform: Callable[..., Any], http: Any, function_image: Image
) -> None:
    with new_platform(RUNNER_MEMORY_MB="256") as platform:
        client = Client(http, platform.start().url)
        image = function_image("cat")
        for number in range(5):
            path = await client.deploy(f"give-way-{number}", "/x", image, memory=128)
            answer = await client.post(path, data=b"x")
            assert (answer.status, answer.body) == (200, b"x")
        held = docker("ps", "-q", "--filter", f"label=millrace.platform={platform.name}",
                      "--filter", "label=millrace.sandbox")  # fmt: skip
        assert len(held.split()) <= 3  # one may be on its way out


FORMATS = ("default", "http", "json", "http-stream")
#: What the wild function is asked for beside its echoes.
WILD = (
    {"do": "exit", "code": 3},
    {"do": "garbage"},
    {"do": "twice"},
    {"do": "answer and exit"},
    {"do": "late", "after_s": 0.02},
    {"do": "hang"},
)


class Mixture:
    """Calls that are told apart by what they say, and those whose answers were not theirs."""

    def __init__(self, client: Client, app: str) -> None:
        self._client, self._app = client, app
        self._limit = asyncio.Semaphore(48)
        self.wrong: list[str] = []

    async def deploy(self, name: str, image: str, kind: str, **fields: Any) -> str:
        if kind != "default":
            fields["max_concurrency"] = 3
        return await self._client.deploy(self._app, f"/{name}", image, format=kind, **fields)

    async def plain(self, path: str, number: int) -> None:
        size = secrets.choice((1, 1000, 70_000)) if number % 10 == 0 else 20
        body = json.dumps({"n": number, "of": path, "x": "y" * size}).encode()
        async with self._limit:
            answer = await self._client.post(path, data=body)
        if answer.status != 200 or answer.body != body:
            self.wrong.append(f"{path} {number}: {answer.status} {answer.body[:100]!r}")

    async def wild(self, path: str, number: int) -> None:
        """Ask for what goes wrong, each third time; an echo must be this call's, if it is one."""
        asked = WILD[number % len(WILD)] if number % 3 == 0 else {"do": "echo", "echo": number}
        async with self._limit:
            answer = await self._client.post(path, data=json.dumps(asked).encode())
        echoed = asked["do"] == "echo"
        if echoed and (answer.status != 200 or answer.json()["echo"] != number):
            self.wrong.append(f"{path} {number}: {answer.status} {answer.body[:200]!r}")
        if not echoed and b'"echo"' in answer.body:
            self.wrong.append(f"{path} {asked}: {answer.body[:200]!r}")

    async def change(self, path: str, number: int) -> None:
        """Change a route under its calls, so that its sandboxes are changed, too."""
        route = path.removeprefix(f"/r/{self._app}")
        changed = {"route": {"config": {"CHANGE": str(number)}}}
        async with self._limit:
            await self._client.patch(f"/v1/apps/{self._app}/routes{route}", json=changed)


async def test_answers_never_mix(client: Client, app: str, hot_image: str) -> None:
    """Thousands of distinguishable calls over all formats, with timeouts and crashes among them."""
    mixture = Mixture(client, app)
    plain = [await mixture.deploy(kind, await echoes.image(kind), kind) for kind in FORMATS]
    wild = [
        await mixture.deploy(f"wild-{kind}", hot_image, kind, timeout=2)
        for kind in ("http", "json")
    ]
    await asyncio.gather(
        *(mixture.plain(path, number) for number in range(700) for path in plain),
        *(mixture.wild(path, number) for number in range(150) for path in wild),
        *(mixture.change(path, number) for number in range(5) for path in plain),
    )
    assert not mixture.wrong, mixture.wrong[:5]


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


@pytest.mark.parametrize("isolation", ["sandbox", "call"])
async def test_nothing_is_left_when_a_platform_has_ended(
    new_platform: Callable[..., Any], http: Any, function_image: Image, isolation: str
) -> None:
    """`Platform` looks for containers when it is left; here, also for folders and sockets."""
    with new_platform() as platform:
        client = Client(http, platform.start().url)
        image = function_image('read what; [ "$what" != die ] || kill -9 $$; echo "$what"')
        path = await client.deploy("left", "/x", image, isolation=isolation, timeout=1)
        answers = await asyncio.gather(
            *(client.post(path, data=what) for what in (b"a\n", b"die\n", b"b\n") for _ in range(4))
        )
        assert sorted(a.status for a in answers) == [200] * 8 + [500] * 4
        folder = Path(platform.first("runner").env["RUNNER_FOLDER"])
        assert names_in(folder)
    assert not names_in(folder)
