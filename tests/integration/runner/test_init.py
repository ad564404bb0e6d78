"""Does the first process of a sandbox do what it is told, and end when that is not as it should be?

The real program, with a test in the place of its runner.
"""

import errno
import os
import random
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from services.runner import protocol
from tests.e2e.images import unable
from tests.integration.runner import firstprocess
from tests.integration.runner.firstprocess import (
    BAD_FRAME,
    BAD_USE,
    CONNECT,
    END_OF_LINK,
    INIT,
    NO_RUNNER,
    START,
    FirstProcess,
    frame,
)

KIB, MIB = 1024, 1024 * 1024
#: Of the environment of a function, what it takes beside the variables of its call.
OWN = {"PATH": "/usr/bin:/bin", "OWN": "image"}
#: A function that tells its variables as they are, one after the other.
TELLS_ENVIRONMENT = ("cat", "/proc/self/environ")


@pytest.fixture(autouse=True)
def _possible() -> None:
    if os.geteuid() != 0:
        unable("only root can give a process a namespace of its own")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="mr-", dir="/tmp") as name:
        yield Path(name)


Starter = Callable[..., FirstProcess]


@pytest.fixture
def of(folder: Path) -> Starter:
    """Return what starts the first process of a sandbox for a command."""

    def start(*command: str, env: dict[str, str] | None = None) -> FirstProcess:
        return FirstProcess(folder, command, OWN if env is None else env)

    return start


def sh(script: str) -> tuple[str, str, str]:
    return "/bin/sh", "-c", script


def variables(**values: str) -> bytes:
    return protocol.environment_block(values)


# What it is for.


def test_a_function_gets_its_files_and_its_end_is_told(of: Starter) -> None:
    with of(*sh("cat; echo $N >&2; exit 3")) as first:
        function = first.start(variables(N="7"))
        function.write(b"input")
        assert function.output() == b"input"
        assert function.errors() == b"7\n"
        told = first.ended()
        assert (told.error, os.waitstatus_to_exitcode(told.status), told.oom_kills) == (0, 3, 0)
        assert told.peak_kib > 0


def test_a_thousand_functions_one_after_the_other(of: Starter) -> None:
    with of("/bin/cat") as first:
        before = firstprocess.descriptors(first.pid)
        for number in range(1000):
            function = first.start()
            function.write(b"%d" % number)
            assert function.output() == b"%d" % number
            assert first.ended().status == 0
            function.close()
        firstprocess.wait_for(lambda: firstprocess.descriptors(first.pid) == before)


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 137, 255])
def test_an_exit_code_is_told_as_it_is(of: Starter, code: int) -> None:
    with of(*sh(f"exit {code}")) as first:
        first.start()
        assert os.waitstatus_to_exitcode(first.ended().status) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_is_told_as_it_is(of: Starter, number: signal.Signals) -> None:
    with of(*sh(f"kill -{number.value} $$; sleep 9")) as first:
        first.start()
        assert os.waitstatus_to_exitcode(first.ended().status) == -number.value


def test_a_function_gets_signals_as_any_process_does(of: Starter) -> None:
    """None is blocked or ignored, whatever its first process does with them."""
    with of("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status") as first:
        lines = first.start().output().split()
        assert lines == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_a_function_is_no_child_of_its_callers_session(of: Starter) -> None:
    with of("cat", "/proc/self/stat") as first:
        pid, _, _, parent, group, session, *_ = first.start().output().split()
        assert parent == b"1"
        assert pid == group == session


# Its variables.


def test_the_variables_of_a_call_win_over_the_images(of: Starter) -> None:
    with of(*TELLS_ENVIRONMENT) as first:
        told = first.start(variables(OWN="call", NEW="1")).output()
        assert told.split(b"\0")[:-1] == [b"OWN=call", b"NEW=1", b"PATH=/usr/bin:/bin"]


def test_the_variables_of_a_call_are_gone_with_it(of: Starter) -> None:
    with of(*TELLS_ENVIRONMENT) as first:
        first.start(variables(SECRET="1", OWN="call")).output()
        first.ended()
        assert first.start().output() == b"PATH=/usr/bin:/bin\0OWN=image\0"


def test_as_many_variables_as_a_frame_can_hold(of: Starter) -> None:
    """1 MiB, which is a frame's limit, in pieces shorter than the kernel's limit of 128 KiB."""
    each = 64 * KIB - len("N00=\0")
    block = b"".join(b"N%02d=%s\0" % (number, b"x" * each) for number in range(16))
    assert len(block) == protocol.BODY_MAX_BYTES
    with of(*TELLS_ENVIRONMENT) as first:
        assert first.start(block).output() == block + b"PATH=/usr/bin:/bin\0OWN=image\0"


def test_very_many_variables(of: Starter) -> None:
    block = b"".join(b"%d=\0" % number for number in range(20_000))
    with of(*TELLS_ENVIRONMENT) as first:
        assert first.start(block).output() == block + b"PATH=/usr/bin:/bin\0OWN=image\0"


@pytest.mark.parametrize(
    ("block", "seen"),
    [
        (b"", b""),
        (b"A=1", b"A=1\0"),
        (b"A=1\0B", b"A=1\0B\0"),
        (b"\0\0A=1\0", b"\0\0A=1\0"),
        (b"=\0==\0", b"=\0==\0"),
        (b"A=\xff\x01\n\0", b"A=\xff\x01\n\0"),
        (b"OWNER=1\0OW=2\0", b"OWNER=1\0OW=2\0"),
    ],
)
def test_odd_variables_are_passed_on_as_they_are(of: Starter, block: bytes, seen: bytes) -> None:
    with of(*TELLS_ENVIRONMENT) as first:
        assert first.start(block).output() == seen + b"PATH=/usr/bin:/bin\0OWN=image\0"


def test_more_than_the_kernel_takes_is_told_and_the_next_call_runs(of: Starter) -> None:
    with of(*TELLS_ENVIRONMENT) as first:
        assert first.start(b"A=" + b"x" * 200 * KIB).output() == b""
        assert first.ended() == protocol.Ended(errno.E2BIG, 0, 0, 0)
        assert first.start(b"A=1\0").output().startswith(b"A=1\0")


# Commands.


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("/nonexistent", errno.ENOENT),
        ("nonexistent", errno.ENOENT),
        ("", errno.EACCES),
        ("/etc", errno.EACCES),
        ("/etc/passwd", errno.EACCES),
        ("/etc/passwd/x", errno.ENOTDIR),
        ("./nonexistent", errno.ENOENT),
        ("/" + "x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_a_command_that_cannot_be_executed(of: Starter, name: str, error: int) -> None:
    with of(name) as first:
        for _ in range(2):
            function = first.start()
            assert first.ended() == protocol.Ended(error, 0, 0, 0)
            assert function.output() == b""


def test_a_command_in_no_format_the_kernel_knows(of: Starter, folder: Path) -> None:
    """It is not handed to a shell: `docker run` does not do that either."""
    program = folder / "program"
    program.write_text("echo no interpreter line\n")
    program.chmod(0o755)
    with of(str(program)) as first:
        first.start()
        assert first.ended().error == errno.ENOEXEC


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{here}/a:{here}/b", b"a"),
        ("{here}/b:{here}/a", b"b"),
        ("/nonexistent:{here}/b", b"b"),
        ("{here}/a/program:{here}/b", b"b"),
        ("{here}/denied:{here}/b", b"b"),
    ],
)
def test_a_command_is_looked_for_in_the_path(
    of: Starter, folder: Path, path: str, found: bytes
) -> None:
    for name, mode in (("a", 0o755), ("b", 0o755), ("denied", 0o644)):
        (folder / name).mkdir()
        program = folder / name / "program"
        program.write_text(f"#!/bin/sh\nprintf {name}\n")
        program.chmod(mode)
    with of("program") as first:
        assert first.start(variables(PATH=path.format(here=folder))).output() == found


def test_a_command_that_is_only_where_it_must_not_be_executed(of: Starter, folder: Path) -> None:
    (folder / "program").write_text("#!/bin/sh\n")
    with of("program") as first:
        first.start(variables(PATH=f"{folder}:/usr/bin"))
        assert first.ended().error == errno.EACCES


def test_without_a_path_the_usual_one_is_used(of: Starter) -> None:
    with of("cat", "/proc/self/environ", env={}) as first:
        assert first.start(b"A=1\0").output() == b"A=1\0"


# What a function leaves behind.


@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000 & exit 3",
        "setsid sleep 1000 & exit 3",
        "(setsid sh -c 'sleep 1000 & sleep 1000' &) ; exit 3",
        "trap '' TERM HUP INT; sleep 1000 & exit 3",
        "sh -c 'trap \"\" TERM; while :; do sleep 1 & wait; done' & exit 3",
        "sh -c 'kill -STOP $$' & exit 3",
        "for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; exit 3",
    ],
)
def test_what_it_leaves_behind_is_gone_when_its_end_is_told(of: Starter, script: str) -> None:
    """Although it holds the function's output open, whose end comes only with its own."""
    with of(*sh(script)) as first:
        function = first.start()
        told = first.ended()
        assert os.waitstatus_to_exitcode(told.status) == 3
        assert firstprocess.children(first.pid) == []
        assert function.output() == b""


def test_orphans_that_end_meanwhile_are_reaped(of: Starter) -> None:
    with of(
        *sh("for n in 1 2 3 4 5; do (sleep 0 &) ; done; echo made; read line; exit 3")
    ) as first:
        function = first.start()
        assert os.read(function.stdout, 10) == b"made\n"
        firstprocess.wait_for(lambda: len(firstprocess.children(first.pid)) == 1)
        function.write(b"\n")
        assert os.waitstatus_to_exitcode(first.ended().status) == 3


def test_a_function_that_closes_its_files_has_not_ended(of: Starter) -> None:
    with of(*sh("exec <&- >&- 2>&-; sleep 0.3; exit 4")) as first:
        function = first.start()
        assert function.output() == b""
        assert os.waitstatus_to_exitcode(first.ended().status) == 4


# The function's way out: none.


def test_a_function_inherits_its_three_files_and_nothing_else(of: Starter) -> None:
    with of("ls", "-l", "/proc/self/fd") as first:
        for _ in range(3):
            lines = first.start().output().splitlines()
            first.ended()
            # The last is the folder that `ls` lists.
            names = [line.split()[8] for line in lines[1:]]
            assert names == [b"0", b"1", b"2", b"3"]
            assert all(b"pipe:" in line for line in lines[1:4])


def test_files_that_come_as_low_numbers_do_not_become_each_other(of: Starter) -> None:
    with of(*sh("cat; echo err >&2")) as first:
        for number in range(20):
            function = first.start()
            function.write(b"%d" % number)
            assert (function.output(), function.errors()) == (b"%d" % number, b"err\n")
            first.ended()


@pytest.mark.parametrize(
    "script",
    [
        "prlimit --pid 1 --nofile=100:100",
        "prlimit --pid 1 --nproc=7:",
        "prlimit --pid 1 --core=0:0",
        "renice -n 5 -p 1 >/dev/null",
        "ionice -c 3 -p 1",
        "chrt --idle --pid 0 1",
        "taskset -p 1 1 >/dev/null",
    ],
)
def test_it_is_told_that_a_function_has_restricted_those_after_it(of: Starter, script: str) -> None:
    """As a process may do to others of its user."""
    with of(*sh('eval "$DO"')) as first:
        first.start(variables(DO="true"))
        assert not first.ended().changed
        first.start(variables(DO=script))
        told = first.ended()
        assert (told.status, told.changed) == (0, True)


# Connections.


@pytest.fixture
def listener(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "listener"))
        made.listen(0)
        made.settimeout(firstprocess.PATIENCE_S)
        yield made


def test_a_connection_to_a_socket_of_the_sandbox(
    of: Starter, folder: Path, listener: socket.socket
) -> None:
    with of("cat") as first:
        first.send(protocol.connect(str(folder / "listener")))
        assert first.receive() == protocol.Connected(0)
        with first.connection() as ours, listener.accept()[0] as theirs:
            assert not os.get_blocking(ours.fileno())
            ours.send(b"hello")
            assert theirs.recv(10) == b"hello"


def test_connections_while_a_function_runs(
    of: Starter, folder: Path, listener: socket.socket
) -> None:
    with of("cat") as first:
        function = first.start()
        for _ in range(100):
            first.send(protocol.connect(str(folder / "listener")))
            assert first.receive() == protocol.Connected(0)
            first.connection().close()
            listener.accept()[0].close()
        function.write(b"x")
        assert function.output() == b"x"
        assert first.ended().status == 0


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nonexistent", errno.ENOENT),
        ("file", errno.ECONNREFUSED),
        ("", errno.ECONNREFUSED),
        ("file/x", errno.ENOTDIR),
    ],
)
def test_a_connection_that_cannot_be_made(of: Starter, folder: Path, name: str, error: int) -> None:
    (folder / "file").touch()
    with of("cat") as first:
        before = firstprocess.descriptors(first.pid)
        for _ in range(2):
            first.send(protocol.connect(f"{folder}/{name}"))
            assert first.receive() == protocol.Connected(error)
        firstprocess.wait_for(lambda: firstprocess.descriptors(first.pid) == before)


def test_a_listener_that_takes_no_more(of: Starter, folder: Path, listener: socket.socket) -> None:
    """It does not wait: the runner decides about that."""
    del listener
    with of("cat") as first:
        told = []
        for _ in range(4):
            first.send(protocol.connect(str(folder / "listener")))
            told.append(first.receive())
        assert told[0] == protocol.Connected(0)
        assert told[-1] == protocol.Connected(errno.EAGAIN)


@pytest.mark.parametrize(("length", "bad"), [(107, False), (108, True), (4096, True)])
def test_the_longest_path_of_a_socket(of: Starter, length: int, *, bad: bool) -> None:
    path = "/tmp/".ljust(length, "x")
    with of("cat") as first:
        first.send(protocol.connect(path))
        if bad:
            assert first.code() == BAD_FRAME
        else:
            assert first.receive() == protocol.Connected(errno.ENOENT)


# Frames as they should not be: it ends, and with it the function.

BAD = {
    "magic": (frame(START, magic=0x314C494E), 3),
    "magic of the other order": (frame(START, magic=0x4D494C31), 3),
    "nothing": (bytes(16), 0),
    "text": (b"GET / HTTP/1.1\r\n", 0),
    "too long": (frame(START, length=protocol.BODY_MAX_BYTES + 1), 3),
    "much too long": (frame(START, length=0xFFFF_FFFF), 3),
    "negative, were it signed": (frame(CONNECT, length=0x8000_0000), 0),
    "kind 0": (frame(0), 0),
    "kind 3": (frame(3), 0),
    "a first process's kind": (frame(16), 0),
    "its own end": (frame(17, bytes(24)), 0),
    "a kind far away": (frame(0xFFFF_FFFF), 0),
    "a start without files": (frame(START), 0),
    "a start with one file": (frame(START), 1),
    "a start with two files": (frame(START), 2),
    "a start with four files": (frame(START), 4),
    "a start with very many files": (frame(START), 250),
    "a connect with a file": (frame(CONNECT, b"/x"), 1),
    "a connect with three files": (frame(CONNECT, b"/x"), 3),
    "a connect with four files": (frame(CONNECT, b"/x"), 4),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("running", [False, True])
def test_a_bad_frame_ends_everything(of: Starter, name: str, *, running: bool) -> None:
    data, count = BAD[name]
    with of("sleep", "1000") as first:
        function = first.start() if running else None
        with first.files(count) as (theirs, _):
            first.send(data, theirs)
        assert first.code() == BAD_FRAME
        if function:
            assert function.output() == b""


def test_a_start_while_a_function_runs_ends_everything(of: Starter) -> None:
    with of("sleep", "1000") as first:
        function = first.start()
        first.start()
        assert first.code() == BAD_FRAME
        assert function.output() == b""


def test_files_beside_the_pieces_of_a_frame_end_everything(of: Starter) -> None:
    data = frame(START, b"A=1\0")
    with of("sleep", "1000") as first, first.files() as (theirs, _):
        first.send(data[:8], theirs)
        first.send(data[8:], theirs)
        assert first.code() == BAD_FRAME


def test_files_beside_a_body_are_nobodys(of: Starter) -> None:
    data = frame(START, b"A=1\0")
    with of("ls", "/proc/self/fd") as first, first.files() as (theirs, ours):
        before = firstprocess.descriptors(first.pid)
        first.send(data[:16], theirs)
        first.send(data[16:], theirs)
        first.ended()
        assert os.read(ours.stdout, KIB) == b"0\n1\n2\n3\n"
        firstprocess.wait_for(lambda: firstprocess.descriptors(first.pid) == before)


@pytest.mark.parametrize("size", range(16))
def test_a_frame_that_breaks_off_ends_it(of: Starter, size: int) -> None:
    with of("sleep", "1000") as first, first.files() as (theirs, _):
        if size:
            first.send(frame(START, b"A=1\0")[:size], theirs)
        first.hang_up()
        assert first.code() == END_OF_LINK


@pytest.mark.parametrize("kind", [START, CONNECT])
@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_a_body_that_breaks_off_ends_it(of: Starter, kind: int, size: int) -> None:
    with of("sleep", "1000") as first, first.files() as (theirs, _):
        first.send(frame(kind, b"x" * size, length=size + 1), theirs if kind == START else ())
        first.hang_up()
        assert first.code() == END_OF_LINK


def test_a_runner_that_goes_takes_everything_along(of: Starter) -> None:
    with of(*sh("trap '' TERM; setsid sleep 1000 & sleep 1000")) as first:
        function = first.start()
        firstprocess.wait_for(lambda: len(firstprocess.children(first.pid)) > 0)
        first.link.close()
        assert first.code() == END_OF_LINK
        assert function.output() == b""


def test_a_runner_that_is_gone_when_the_end_is_told(of: Starter) -> None:
    with of(*sh("read line; exit 3")) as first:
        function = first.start()
        first.link.shutdown(socket.SHUT_RD)
        function.write(b"\n")
        assert first.code() == END_OF_LINK


# Frames as they may be, although they seldom are.


def test_a_frame_byte_by_byte(of: Starter) -> None:
    with of(*TELLS_ENVIRONMENT) as first:
        block = b"A=1\0BC=2\0"
        function = first.start(block, pieces=[1] * (16 + len(block)))
        assert function.output().startswith(block)


@pytest.mark.parametrize("pieces", [[4, 4, 4, 4], [15, 1], [17], [1, 15, 3]])
def test_a_frame_in_pieces(of: Starter, pieces: Sequence[int]) -> None:
    with of(*TELLS_ENVIRONMENT) as first:
        function = first.start(b"A=1\0BC=2\0", pieces=pieces)
        assert function.output().startswith(b"A=1\0BC=2\0")


def test_two_frames_in_one_write(of: Starter, folder: Path, listener: socket.socket) -> None:
    del listener
    asked = protocol.connect(str(folder / "listener"))
    with of("cat") as first, first.files() as (theirs, ours):
        first.send(frame(START, b"A=1\0") + asked + protocol.connect("/nonexistent"), theirs)
        assert first.receive() == protocol.Connected(0)
        assert first.receive() == protocol.Connected(errno.ENOENT)
        ours.finish()
        assert first.ended().status == 0


def test_many_frames_in_one_write(of: Starter) -> None:
    with of("cat") as first:
        first.link.sendall(protocol.connect("/nonexistent") * 500)
        for _ in range(500):
            assert first.receive() == protocol.Connected(errno.ENOENT)


def test_anything_at_all_ends_it(of: Starter) -> None:
    """Whatever comes, once no more comes it is gone, with one of its two reasons."""
    chosen = random.Random(secrets.token_hex(8))
    for _ in range(40):
        with of("sleep", "1000") as first:
            function = first.start() if chosen.random() < 0.5 else None
            with first.files() as (theirs, _):
                damaged(first, chosen, theirs)
            assert first.code() in {END_OF_LINK, BAD_FRAME}
            if function:
                assert function.output() == b""


def damaged(first: FirstProcess, chosen: random.Random, fds: Sequence[int]) -> None:
    """Send some frames, of which bytes are lost, doubled or changed, and then nothing more."""
    data = bytearray()
    for _ in range(chosen.randrange(1, 4)):
        kind = chosen.choice([START, CONNECT, CONNECT, chosen.randrange(1 << 32)])
        data += frame(kind, chosen.randbytes(chosen.randrange(200)))
    for _ in range(chosen.randrange(8)):
        at = chosen.randrange(len(data))
        data[at : at + chosen.randrange(3)] = chosen.randbytes(chosen.randrange(3))
    try:
        while data:
            size = chosen.randrange(1, 40)
            first.send(bytes(data[:size]), fds[: chosen.choice([0, 0, 0, 1, 3])])
            del data[:size]
        first.hang_up()
    except OSError:
        # It has ended already.
        return


# Where it does not start.


def test_it_is_only_ever_the_first_process(folder: Path) -> None:
    """In a namespace of its own all the same, should it forget that."""
    script = f"{INIT} {folder}/nonexistent true; echo $?"
    done = subprocess.run(
        [*firstprocess.NAMESPACED, "sh", "-c", script], capture_output=True, check=True
    )
    assert done.stdout == b"%d\n" % BAD_USE


@pytest.mark.parametrize("arguments", [[], ["/nonexistent"]])
def test_it_wants_a_socket_and_a_command(arguments: list[str]) -> None:
    done = subprocess.run([*firstprocess.NAMESPACED, str(INIT), *arguments], check=False)
    assert done.returncode == BAD_USE


def test_without_a_runner_it_ends(folder: Path) -> None:
    command = [*firstprocess.NAMESPACED, str(INIT), f"{folder}/nonexistent", "true"]
    assert subprocess.run(command, check=False).returncode == NO_RUNNER


def test_without_standard_files_of_its_own(of: Starter) -> None:
    """What it opens must not become a function's input or output."""
    with of(*sh("cat; ls /proc/self/fd >&2")).without_files() as first:
        function = first.start()
        function.write(b"input")
        assert function.output() == b"input"
        assert function.errors() == b"0\n1\n2\n3\n"
