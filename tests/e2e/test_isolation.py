"""What can a function reach? The world, but nothing of the platform and no more than its share."""

import json
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.conftest import MysqlServer
from tests.e2e import images
from tests.e2e.client import Client
from tests.e2e.conftest import World
from tests.e2e.platforms import Platform

Image = Callable[[str], str]
#: Connects to $1 port $2, and says whether that worked.
KNOCK = (
    'if nc -w 2 "$HOST_" "$PORT_" </dev/null >/dev/null 2>&1; then echo open; else echo shut; fi'
)


async def knock(client: Client, app: str, image: str, host: str, port: int) -> str:
    """Return "open" if a function can connect to an address, else "shut"."""
    config = {"HOST_": host, "PORT_": str(port)}
    path = await client.deploy(app, f"/{host}-{port}", image, config=config)
    answer = await client.post(path)
    assert answer.status == 200, answer.text
    return answer.text.strip()


async def test_the_world_is_reached(
    client: Client, app: str, world: World, function_image: Image
) -> None:
    host, port = world.address.split(":")
    assert await knock(client, app, function_image(KNOCK), host, int(port)) == "open"
    path = await client.deploy(
        app, "/get", function_image("exec wget -q -O- http://$WORLD/"), config=world.config
    )
    assert (await client.post(path)).text == "hello from outside\n"


async def test_the_data_stores_are_not_reached(
    client: Client,
    app: str,
    platform: Platform,
    mysql_server: MysqlServer,
    function_image: Image,
) -> None:
    image = function_image(KNOCK)
    redis = urlsplit(platform.mq_url).hostname or ""
    assert await knock(client, app, image, mysql_server.host, 3306) == "shut"
    assert await knock(client, app, image, redis, 6379) == "shut"


async def test_another_apps_container_is_not_reached(
    client: Client, app: str, world: World, function_image: Image
) -> None:
    """A function of one app listens and tells its address; one of another app knocks there."""
    script = (
        "ip=$(hostname -i); (while :; do echo hi | nc -l -p 7000; done) & sleep 0.3; "
        "wget -q -O- http://$WORLD/at/$ip >/dev/null; sleep 6"
    )
    listener = await client.deploy(
        app, "/listen", function_image(script), type="async", config=world.config
    )
    call_id = (await client.post(listener)).json()["call_id"]
    address = await world.told("/at/")
    assert await knock(client, f"{app}-b", function_image(KNOCK), address, 7000) == "shut"
    assert (await client.record(call_id))["status"] == "running", "it had ended too early to tell"


async def test_the_engine_is_not_there(client: Client, app: str, function_image: Image) -> None:
    script = "ls /var/run/docker.sock /run/docker.sock 2>&1 | grep -c 'No such file'"
    path = await client.deploy(app, "/x", function_image(script))
    assert (await client.post(path)).text.strip() == "2"


async def test_capabilities_and_privileges_are_dropped(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("exec cat /proc/self/status"))
    status = dict(
        line.split(":\t", 1)
        for line in (await client.post(path)).text.splitlines()
        if ":\t" in line
    )
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


async def test_the_host_cannot_be_changed(client: Client, app: str, function_image: Image) -> None:
    script = (
        "hostname changed 2>/dev/null && echo renamed; "
        "echo 1 > /proc/sys/kernel/panic && echo written; echo tried"
    )
    path = await client.deploy(app, "/x", function_image(script))
    assert (await client.post(path)).text == "tried\n"


@pytest.mark.parametrize("memory", [64, 256])
async def test_limits_of_its_container(
    client: Client, app: str, world: World, function_image: Image, memory: int
) -> None:
    script = "wget -q -O- http://$WORLD/begun >/dev/null; exec sleep 5"
    path = await client.deploy(
        app, "/x", function_image(script), memory=memory, type="async", config=world.config
    )
    call_id = (await client.post(path)).json()["call_id"]
    await world.hit("/begun")
    found = images.docker("ps", "-aq", "--filter", f"label=millrace.app={app}")
    [container] = json.loads(images.docker("inspect", found))
    images.docker("kill", found)
    host = container["HostConfig"]
    assert host["Memory"] == memory * 1024 * 1024
    assert host["MemorySwap"] == host["Memory"], "swap would be more memory"
    assert host["NanoCpus"] or host["CpuQuota"]
    assert 0 < host["PidsLimit"] <= 4096
    assert host["LogConfig"]["Type"] == "none"
    assert not host["Privileged"]
    assert not [mount for mount in container["Mounts"] if mount["RW"]]
    # Its sandbox was taken from it, which is no fault of the function: it is run again.
    record = await client.ended(call_id)
    assert (record["status"], record["attempt"]) == ("success", 2)
