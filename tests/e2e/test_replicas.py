"""Is a change made through one api replica in force at the next call through another?"""

import asyncio
from collections.abc import Callable

from tests.e2e.client import Client
from tests.e2e.platforms import Service

Image = Callable[[str], str]
SAY = 'echo "$WORD"'
TIMES = 15


async def test_route_and_app_config(
    client: Client, second_api: Service, app: str, function_image: Image
) -> None:
    other = client.at(second_api.url)
    await client.create_app(app)
    path = await client.deploy(app, "/x", function_image(SAY))
    for turn in range(TIMES):
        change, call = (client, other) if turn % 2 else (other, client)
        config = {"config": {"WORD": f"word {turn}"}}
        if turn % 3:
            answer = await change.patch(f"/v1/apps/{app}/routes/x", json={"route": config})
        else:
            cleared = {"route": {"config": {"WORD": ""}}}
            await change.patch(f"/v1/apps/{app}/routes/x", json=cleared)
            answer = await change.patch(f"/v1/apps/{app}", json={"app": config})
        assert answer.status == 200
        assert (await call.post(path)).text == f"word {turn}\n"


async def test_creation_and_deletion(
    client: Client, second_api: Service, app: str, function_image: Image
) -> None:
    """No function runs here, so this goes many times in little time."""
    other = client.at(second_api.url)
    image = function_image("exec cat")
    await client.create_app(app)
    for turn in range(20):
        change, call = (client, other) if turn % 2 else (other, client)
        path = await change.deploy(app, "/x", image, type="async")
        assert (await call.post(path)).status == 202, f"turn {turn}: not there yet"
        assert (await change.delete(f"/v1/apps/{app}/routes/x")).status == 200
        assert (await call.post(path)).status == 404, f"turn {turn}: still there"


async def test_a_key_put_on_a_route(
    client: Client, second_api: Service, app: str, function_image: Image
) -> None:
    other = client.at(second_api.url)
    path = await client.deploy(app, "/x", function_image("exec cat"))
    assert (await other.post(path)).status == 200
    await client.patch(f"/v1/apps/{app}/routes/x", json={"route": {"jwt_key": "secret"}})
    assert (await other.post(path)).status == 401


async def test_replies_find_the_replica_that_waits(
    client: Client, second_api: Service, app: str, function_image: Image
) -> None:
    other = client.at(second_api.url)
    path = await client.deploy(app, "/x", function_image("exec cat"))
    bodies = [b"%d" % n for n in range(16)]
    answers = await asyncio.gather(
        *((client, other)[n % 2].post(path, data=body) for n, body in enumerate(bodies))
    )
    assert [a.body for a in answers] == bodies
