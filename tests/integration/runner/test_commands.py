"""Is what an image says of its command, user, folder and variables done as `docker run` does it?"""

import pytest

from services.runner import outcome, runs
from shared import messages
from tests.integration.runner.bench import Bench
from tests.integration.runner.functions import BUSYBOX, build, static


def unusable(result: runs.Result) -> str:
    assert isinstance(result.ending, runs.ImageUnusable), result
    assert result.started_ms is None
    reached = outcome.judge(result, "img", None)
    assert isinstance(reached, messages.Failed)
    assert reached.code == "image_invalid"
    return result.ending.why


async def answer(bench: Bench, *instructions: str, base: str = BUSYBOX, **changes: object) -> str:
    image = await build(bench.docker, "commands", *instructions, base=base)
    result = await bench.run_image(image, b"in", **changes)
    assert result.ending == runs.Exited(0), result
    return result.body.decode()


@pytest.mark.parametrize(
    ("instructions", "why"),
    [
        (('ENTRYPOINT ["/nope"]',), "no such file or directory"),
        (('ENTRYPOINT ["nope"]',), "no such file or directory"),
        (('ENTRYPOINT ["/etc"]',), "permission denied"),
        (('ENTRYPOINT ["/etc/passwd"]',), "permission denied"),
        (('RUN printf "echo hi" > /x; chmod 755 /x', 'ENTRYPOINT ["/x"]'), "exec format error"),
        (
            ('RUN printf "#!/nope\\nhi" > /x; chmod 755 /x', 'ENTRYPOINT ["/x"]'),
            "no such file or directory",
        ),
        (("USER nobodyknows", 'ENTRYPOINT ["/bin/sh"]'), "unable to find user nobodyknows"),
        (("USER 0:nogroup", 'ENTRYPOINT ["/bin/sh"]'), "unable to find group nogroup"),
    ],
)
async def test_an_image_nothing_can_be_started_from(
    bench: Bench, instructions: tuple[str, ...], why: str
) -> None:
    image = await build(bench.docker, "bad", *instructions)
    assert why in unusable(await bench.run_image(image))
    assert await bench.containers() == []


@pytest.mark.parametrize("how", ["http", "json", "http-stream"])
async def test_the_same_for_a_function_that_is_to_live_on(bench: Bench, how: str) -> None:
    image = await build(bench.docker, "bad", 'ENTRYPOINT ["/nope"]')
    assert "no such file" in unusable(await bench.run_image(image, format=how))


async def test_an_image_without_a_command(bench: Bench) -> None:
    image = await build(bench.docker, "empty", "COPY x /", base="scratch", files={"x": b"x"})
    assert unusable(await bench.run_image(image)) == "No command specified"


async def test_an_image_with_one_program_and_nothing_else(bench: Bench) -> None:
    """No shell, no folder, no user, no library, no PATH."""
    program = await static(bench.docker, "tiny")
    image = await build(
        bench.docker,
        "tiny",
        "COPY tiny /",
        'ENTRYPOINT ["/tiny", "a b"]',
        'CMD ["c"]',
        base="scratch",
        files={"tiny": program},
    )
    async with bench.opened(image) as box:
        for _ in range(3):
            assert await box.answer(b"input") == b"/tiny\na b\nc\ninput"


@pytest.mark.parametrize(
    ("instructions", "said"),
    [
        (('CMD ["echo", "a  b", "$HOME"]',), "a  b $HOME\n"),
        (('ENTRYPOINT ["echo"]', 'CMD ["a"]'), "a\n"),
        (("CMD echo $((1 + 1))",), "2\n"),
        (("ENTRYPOINT echo $0", 'CMD ["after"]'), "after\n"),
        (('ENTRYPOINT ["cat"]',), "in"),
    ],
)
async def test_entry_point_and_command(
    bench: Bench, instructions: tuple[str, ...], said: str
) -> None:
    assert await answer(bench, *instructions) == said


async def test_a_command_in_the_folder(bench: Bench) -> None:
    made = "RUN printf '#!/bin/sh\\npwd' > /site/x; chmod 755 /site/x"
    assert await answer(bench, "WORKDIR /site", made, 'ENTRYPOINT ["./x"]') == "/site\n"


async def test_a_command_on_the_images_path(bench: Bench) -> None:
    """Which a route's config may change; a path that it makes empty holds nothing."""
    made = 'RUN mkdir /a /b; for d in a b; do printf "#!/bin/sh\\necho $d" > /$d/x; done'
    lines = (made, "RUN chmod 755 /a/x /b/x", "ENV PATH=/a:/bin", 'ENTRYPOINT ["x"]')
    assert await answer(bench, *lines) == "a\n"
    assert await answer(bench, *lines, config={"PATH": "/b"}) == "b\n"
    assert await answer(bench, *lines, config={"PATH": "/nope"}, env={"PATH": "/b:/a"}) == "b\n"
    image = await build(bench.docker, "commands", *lines)
    assert "no such file" in unusable(await bench.run_image(image, config={"PATH": ""}))


async def test_user_group_and_folder(bench: Bench) -> None:
    told = 'ENTRYPOINT ["/bin/sh", "-c", "id -u; id -g; pwd; echo $HOME"]'
    assert await answer(bench, "WORKDIR /site", "USER 1234:99", told) == "1234\n99\n/site\n/\n"
    named = "RUN echo me:x:7:8::/home/me:/bin/sh >> /etc/passwd"
    assert await answer(bench, named, "USER me", told) == "7\n8\n/\n/home/me\n"


async def test_a_folder_of_the_image_that_its_user_cannot_write_to(bench: Bench) -> None:
    script = "echo x > /site/x 2>/dev/null || echo no; echo x > /tmp/x && cat /tmp/x"
    lines = ("WORKDIR /site", "RUN chmod 777 /tmp", "USER 1234")
    assert await answer(bench, *lines, f'CMD ["/bin/sh", "-c", "{script}"]') == "no\nx\n"


async def test_the_variables_of_image_config_and_call(bench: Bench) -> None:
    """Each wins over those before it."""
    lines = ("ENV A=image B=image C=image", 'ENTRYPOINT ["/bin/sh", "-c", "echo $A $B $C"]')
    config = {"B": "config", "C": "config"}
    assert await answer(bench, *lines, config=config, env={"C": "call"}) == "image config call\n"


async def test_a_volume_of_the_image_is_the_sandboxs_own_and_goes_with_it(bench: Bench) -> None:
    script = "ls /data; echo x > /data/left"
    lines = ("VOLUME /data", f'ENTRYPOINT ["/bin/sh", "-c", "{script}"]')
    image = await build(bench.docker, "volume", *lines)
    names = set()
    for _ in range(2):
        async with bench.opened(image) as box:
            assert await box.answer() == b""
            assert await box.answer() == b"left\n"
            shown = await bench.docker.containers.container(box.sandbox.container_id).show()
            names |= {mount["Name"] for mount in shown["Mounts"] if mount["Type"] == "volume"}
    assert len(names) == 2
    left = (await bench.docker.volumes.list())["Volumes"] or ()
    assert not names & {volume["Name"] for volume in left}


async def test_the_images_health_check_is_not_run(bench: Bench) -> None:
    """It would be a second process beside the call's, and its files beside the call's."""
    lines = ("HEALTHCHECK --interval=1s CMD echo x >> /checked", 'ENTRYPOINT ["/bin/sh", "-c"]')
    script = 'CMD ["sleep 1.5; cat /checked || echo unchecked"]'
    assert "unchecked" in await answer(bench, *lines, script)
