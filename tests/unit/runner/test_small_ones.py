"""Pure modules with little to say: environment, heartbeat, janitor, entries, containers, pause."""

import doctest
import struct

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
    settings,
    state,
)
from services.runner.namespaces import Namespace
from shared import messages
from shared.errors import BadSettings, Undecodable
from shared.settings import read
from tests.unit.runner.builders import HEAD, NOW_MS

OWNER = containers.Owner("millrace", "r1")
LIMITS = containers.Limits(pids=256, files=1024, file_max_mb=64, disk_mb=0)


@pytest.mark.parametrize("module", [environment, credentials, heartbeat, janitor])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0


def test_a_request_wins_over_config_and_the_deadline_over_all() -> None:
    env = environment.assemble({"A": "1", "B": "1"}, {"B": "2=3", "DEADLINE": "x"}, 7)
    assert env == ["A=1", "B=2=3", "DEADLINE=7"]


def test_a_sandbox_is_confined() -> None:
    config = containers.sandbox(HEAD, ["A=1"], Namespace("n", ("/h:/etc/hosts:ro",)), LIMITS, OWNER)
    host = config["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 128 * 1024 * 1024
    assert host["NanoCpus"] == 1_000_000_000
    assert host["PidsLimit"] == 256
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["LogConfig"] == {"Type": "none"}
    assert host["NetworkMode"] == "container:n"
    assert "StorageOpt" not in host
    assert config["Labels"] == {
        "millrace.platform": "millrace",
        "millrace.runner": "r1",
        "millrace.call": "c1",
    }


def test_a_disk_quota_is_asked_for_only_if_set() -> None:
    limits = containers.Limits(256, 1024, 64, disk_mb=100)
    config = containers.sandbox(HEAD, [], Namespace("n"), limits, OWNER)
    assert config["HostConfig"]["StorageOpt"] == {"size": "100M"}


def test_a_network_that_lets_containers_meet_is_not_ours() -> None:
    made = containers.network("f", "millrace")
    assert containers.isolates(made)
    assert not containers.isolates({"Driver": "bridge", "Options": {}})
    assert not containers.isolates({**made, "Driver": "overlay"})


INFO = engine.EngineInfo("e", 24_000, 2, "amd64")


def test_a_heartbeat_offers_what_the_engine_has() -> None:
    beat = heartbeat.build(
        "r1", INFO, memory_mb=0, overcommit=8.0, able=True, draining=False,
        images=("i",), running=3, now_ms=NOW_MS,
    )  # fmt: skip
    assert (beat.memory_mb, beat.cpus, beat.engine_id) == (21_600, 16.0, "e")


def test_a_heartbeat_stays_small() -> None:
    assert len(heartbeat.route_names(f"i{n}:latest" for n in range(1000))) == heartbeat.IMAGES_MAX


def leftovers(*found: engine.Found, living: tuple[str, ...] = ("me",)) -> list[str]:
    return janitor.leftovers(
        found, own_id="me", living=living, calls=["here"], namespaces=["ns"], now_s=1000
    )


def test_leftovers_of_the_dead_go_and_a_siblings_stay() -> None:
    dead = engine.Found("1", "dead", "x", 999)
    sibling = engine.Found("2", "sibling", "y", 0)
    assert leftovers(dead, sibling, living=("me", "sibling")) == ["1"]


def test_own_ones_stay_while_they_serve_or_are_young() -> None:
    serving = engine.Found("1", "me", "here", 0)
    namespace = engine.Found("ns", "me", "", 0)
    young = engine.Found("3", "me", "gone", 999)
    lost = engine.Found("4", "me", "gone", 0)
    assert leftovers(serving, namespace, young, lost, living=()) == ["4"]


def test_who_lives() -> None:
    beats = [
        messages.Heartbeat("old", "e", NOW_MS - 10_001, 1, 1, "amd64"),
        messages.Heartbeat("new", "e", NOW_MS - 9_000, 1, 1, "amd64"),
    ]
    assert janitor.alive(beats, NOW_MS) == {"new"}


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


@pytest.mark.parametrize(
    "fields", [{}, {b"k": b"x"}, {b"k": b"assign"}, {b"k": b"assign", b"h": b"\xff"}]
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
