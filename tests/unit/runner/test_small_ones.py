"""Pure modules with little to say: environment, heartbeat, janitor, entries, containers, pause."""

import doctest
import struct
from typing import Any

import pytest

from services.runner import (
    containers,
    credentials,
    engine,
    entries,
    environment,
    heartbeat,
    janitor,
    pause,
    processes,
    protocol,
    pulls,
    settings,
    state,
)
from services.runner.namespaces import Namespace
from shared import ids, imagenames, messages
from shared.errors import BadSettings, Undecodable
from shared.settings import read
from tests.unit.runner.builders import HEAD, NOW_MS, kind

OWNER = containers.Owner("millrace", "r1")
LIMITS = containers.Limits(pids=256, files=1024, file_max_mb=64, disk_mb=0)


@pytest.mark.parametrize(
    "module",
    [environment, credentials, heartbeat, janitor, processes, protocol, pulls, imagenames],
    ids=lambda m: m.__name__,
)
def test_examples_in_docstrings(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_request_wins_over_config_and_the_deadline_over_all() -> None:
    env = environment.assemble({"A": "1", "B": "1"}, {"B": "2=3", "DEADLINE": "x"}, 7)
    assert env == {"A": "1", "B": "2=3", "DEADLINE": "7"}


def sandbox(limits: containers.Limits = LIMITS, **changes: Any) -> containers.Config:
    namespace = Namespace("n", ("/h:/etc/hosts:ro",))
    bind = "/run/x/1:/.millrace:ro"
    made_of = kind("p", memory_mb=128, **changes)
    return containers.sandbox(
        "7", made_of, ["/bin/f", "-x"], namespace, bind, limits=limits, owner=OWNER
    )


def test_a_sandbox_is_confined() -> None:
    host = sandbox(cpus=0.5)["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 128 * 1024 * 1024
    assert host["NanoCpus"] == 500_000_000
    assert host["PidsLimit"] == 256
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["LogConfig"] == {"Type": "none"}
    assert host["NetworkMode"] == "container:n"
    assert {"Name": "fsize", "Soft": 64 * 2**20, "Hard": 64 * 2**20} in host["Ulimits"]
    assert "StorageOpt" not in host
    assert "Tmpfs" not in host


def test_a_sandbox_begins_with_our_init_which_it_cannot_write() -> None:
    config = sandbox()
    assert config["Entrypoint"] == ["/.millrace/init", "/.millrace/socket"]
    assert config["Cmd"] == ["/bin/f", "-x"]
    binds = config["HostConfig"]["Binds"]
    assert binds == ["/h:/etc/hosts:ro", "/run/x/1:/.millrace:ro"]
    assert all(bind.endswith(":ro") for bind in binds)
    assert not {"User", "WorkingDir", "Env"} & config.keys(), "those are the image's"


def test_a_sandbox_is_found_by_its_labels() -> None:
    assert sandbox()["Labels"] == {
        "millrace.platform": "millrace",
        "millrace.runner": "r1",
        "millrace.sandbox": "7",
        "millrace.app": "a",
        "millrace.path": "/p",
    }


def test_an_engine_is_never_asked_for_less_memory_than_it_gives() -> None:
    made_of = kind(memory_mb=1)
    config = containers.sandbox("7", made_of, ["f"], Namespace("n"), "", limits=LIMITS, owner=OWNER)
    assert config["HostConfig"]["Memory"] == 6 * 2**20


def test_only_a_function_that_listens_has_a_folder_for_its_socket() -> None:
    tmpfs = sandbox(format="http-stream")["HostConfig"]["Tmpfs"]
    assert list(tmpfs) == ["/tmp/iofs"]
    assert {"noexec", "nosuid", "nodev"} <= set(tmpfs["/tmp/iofs"].split(","))


def test_a_disk_quota_is_asked_for_only_if_set() -> None:
    limits = containers.Limits(256, 1024, 64, disk_mb=100)
    assert sandbox(limits)["HostConfig"]["StorageOpt"] == {"size": "100M"}


def test_what_keeps_a_namespace_can_do_nothing_else() -> None:
    config = containers.keeper("pause", "net", OWNER)
    assert config["HostConfig"]["ReadonlyRootfs"]
    assert config["HostConfig"]["CapDrop"] == ["ALL"]
    assert config["HostConfig"]["NetworkMode"] == "net"
    assert containers.SANDBOX_LABEL not in config["Labels"]


def test_a_network_that_lets_containers_meet_is_not_ours() -> None:
    made = containers.network("f", "millrace")
    assert containers.isolates(made)
    assert not containers.isolates({"Driver": "bridge", "Options": {}})
    assert not containers.isolates({**made, "Driver": "overlay"})


INFO = engine.EngineInfo("e", 24_000, 2, "amd64")


def test_a_heartbeat_offers_what_the_engine_has() -> None:
    count = messages.SandboxCount("a", "/p", "k", 1, 2, 3)
    beat = heartbeat.build(
        "r1", INFO, memory_mb=0, overcommit=8.0, able=True, draining=False,
        images=("i",), running=3, sandboxes=(count,), idle_memory_mb=128, now_ms=NOW_MS, name="n",
    )  # fmt: skip
    assert (beat.memory_mb, beat.cpus, beat.engine_id) == (21_600, 16.0, "e")
    assert (beat.runner_id, beat.name) == ("r1", "n")
    assert (beat.sandboxes, beat.idle_memory_mb, beat.running) == ((count,), 128, 3)


def test_a_heartbeat_stays_small() -> None:
    assert len(heartbeat.route_names(f"i{n}:latest" for n in range(1000))) == heartbeat.IMAGES_MAX


def test_of_very_many_images_the_newest_are_told() -> None:
    names = engine.names_of(
        [
            {"RepoTags": [f"z:{n}"], "RepoDigests": ["<none>@<none>"], "Created": n}
            for n in range(1000)
        ]
    )
    assert names[:2] == ["z:999", "z:998"]
    assert set(heartbeat.route_names(names)) == set(names[: heartbeat.IMAGES_MAX])


def test_an_image_has_the_names_of_its_tags_and_its_digests() -> None:
    image = {"RepoTags": ["b:1", "b:latest"], "RepoDigests": ["b@sha256:0"], "Created": 1}
    assert engine.names_of([image, {"RepoTags": None}]) == ["b:1", "b:latest", "b@sha256:0"]


def leftovers(*found: engine.Found, living: tuple[str, ...] = ("me",)) -> list[str]:
    return janitor.leftovers(
        found, own_id="me", living=living, sandboxes=["7"], namespaces=["ns"], now_s=1000
    )


def test_leftovers_of_the_dead_go_and_a_siblings_stay() -> None:
    dead = engine.Found("1", "dead", "7", 999)
    sibling = engine.Found("2", "sibling", "8", 0)
    assert leftovers(dead, sibling, living=("me", "sibling")) == ["1"]


def test_own_ones_stay_while_they_serve_or_may_come_to() -> None:
    serving = engine.Found("1", "me", "7", 0)
    namespace = engine.Found("ns", "me", "", 0)
    young = engine.Found("3", "me", "", 999)
    lost = engine.Found("4", "me", "", 0)
    assert leftovers(serving, namespace, young, lost, living=()) == ["4"]


def test_a_sandbox_that_could_not_be_removed_goes_however_young_it_is() -> None:
    assert leftovers(engine.Found("3", "me", "8", 999)) == ["3"]


def signs(since_s: float, *names: str) -> dict[str, janitor.Sign]:
    return dict.fromkeys(names, janitor.Sign("same", since_s))


def test_who_lives() -> None:
    assert janitor.alive(signs(0.0, "old") | signs(1.0, "new"), 10.0) == {"new"}


def test_nobody_is_dead_who_could_not_be_heard() -> None:
    """When Redis came back, the first runner to look removed the containers of all others."""
    back = janitor.watched({}, {"old": 1, "new": 9}, now_s=100.0)
    assert janitor.alive(back, 105.0) == {"old", "new"}
    assert janitor.alive(back, 110.0) == set()


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_a_clock_that_jumps_makes_nobody_dead(jump_ms: int) -> None:
    """The first runner to look after that removed the containers of all others."""
    seen: dict[str, janitor.Sign] = {}
    for second in range(30):
        beat = NOW_MS + 1000 * second + (jump_ms if second > 15 else 0)
        seen = janitor.watched(seen, {"jumps": beat, "dead": NOW_MS}, float(second))
        assert janitor.alive(seen, float(second)) == (
            {"jumps", "dead"} if second < 10 else {"jumps"}
        )


def test_a_folder_stays_while_its_runner_touches_it_and_a_strangers_for_ever() -> None:
    """A sibling that was just starting had no heartbeat yet, and lost its folder."""
    assert janitor.stale_folders(signs(880.0, "0123abcd"), now_s=1_000.0) == []
    assert janitor.stale_folders(signs(879.0, "0123abcd"), now_s=1_000.0) == ["0123abcd"]
    strangers = ["home", "0123ABCD", "0123abcde", "0123abc", "0123abcd\n", ""]
    assert janitor.stale_folders(signs(0.0, *strangers), now_s=1_000.0) == []


def test_a_runners_folder_is_named_as_the_janitor_knows_it() -> None:
    name = janitor.folder_name(ids.new_process_id("runner"))
    assert janitor.stale_folders(signs(0.0, name), now_s=1_000.0) == [name]


PARCEL = messages.Parcel({}, {}, b"in")
ASSIGNMENT = messages.Assignment(1, NOW_MS)


def test_entries() -> None:
    fields = {
        b"k": b"assign",
        b"h": messages.encode(HEAD),
        b"a": messages.encode(ASSIGNMENT),
    }
    assert entries.decode((b"1-1", fields)) == state.Assigned(b"1-1", HEAD, ASSIGNMENT)
    inline = {**fields, b"p": messages.encode(PARCEL)}
    assert entries.decode((b"1-1", inline)) == state.Assigned(b"1-1", HEAD, ASSIGNMENT, PARCEL)
    cancel = {b"k": b"cancel", b"m": messages.encode(messages.Cancel("c1"))}
    assert entries.decode((b"1-2", cancel)) == state.CallerLeft(b"1-2", "c1")
    more = messages.More("c1", 65_536)
    taken = {b"k": b"more", b"m": messages.encode(more)}
    assert entries.decode((b"1-3", taken)) == entries.Taken(b"1-3", more)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"k": b"x"},
        {b"k": b"assign"},
        {b"k": b"assign", b"h": b"\xff"},
        {b"k": b"assign", b"h": messages.encode(HEAD)},
        {
            b"k": b"assign",
            b"h": messages.encode(HEAD),
            b"a": messages.encode(ASSIGNMENT),
            b"p": b"",
        },
        {b"k": b"cancel"},
        {b"k": b"more", b"m": messages.encode(messages.Cancel("c1"))},
    ],
)
def test_entries_nobody_can_read(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(Undecodable):
        entries.decode((b"1-1", fields))


@pytest.mark.parametrize("arch", pause.architectures())
def test_the_pause_program_is_an_elf_file(arch: str) -> None:
    program = pause.program(arch)
    assert program[:4] == b"\x7fELF"
    entry, header_at = struct.unpack_from("<QQ", program, 24)
    file_size = struct.unpack_from("<Q", program, header_at + 32)[0]
    assert file_size == len(program)
    assert entry == 0x400000 + 120
    assert pause.image(arch) == pause.image(arch)


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        read(settings.Settings, {"PORT": "x", "RUNNER_PIDS": "1"})
    assert "PORT" in caught.value.message
    assert "RUNNER_PIDS" in caught.value.message
