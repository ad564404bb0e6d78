"""Does a function answer as its tests say? Here or on the platform; what differs is shown."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fn import framing, locally, platform, tokens
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fn.funcfile import FuncFile
    from fn.locally import Outcome

_ACCEPTED, _BAD = 202, 400
_DIFF_MAX_LINES = 40


@dataclass(frozen=True)
class Verdict:
    """What one test has shown."""

    name: str
    #: What is wrong, a line each; none if all is well.
    faults: list[str]
    elapsed_s: float


def limits(file: FuncFile, links: tuple[str, ...] = ()) -> locally.Limits:
    """Return what a function may use here: what its route would give it."""
    return locally.Limits(
        format=file.format,
        memory_mb=file.get("memory", 128),
        cpus=file.get("cpus", 1.0),
        timeout_s=file.get("timeout", 30),
        links=links,
    )


def call(
    file: FuncFile,
    body: bytes,
    method: str,
    headers: Mapping[str, str],
    config: Mapping[str, str],
) -> framing.Call:
    """Return a call of a function as it would come through the platform."""
    path = file.route_path
    return framing.Call(
        body=body,
        method=method,
        path=path,
        url=f"http://localhost:8080/r/local{path}",
        deadline_ms=int((time.time() + file.get("timeout", 30)) * 1000),
        headers=tuple(headers.items()),
        config=config,
    )


def body_of(test: Mapping[str, Any], folder: Path) -> bytes:
    """Return what a test sends."""
    if "in_file" in test:
        return _file(folder, test["in_file"])
    return str(test.get("in", "")).encode()


def _file(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise FnError(
            f"a test needs {name}: {error.strerror}", f"It is looked for in {folder}."
        ) from error


def here(
    file: FuncFile, test: Mapping[str, Any], image: str, environment: Mapping[str, str]
) -> Outcome:
    """Run a test in a container on this machine."""
    own = test.get("env", {})
    headers = {**own, **test.get("headers", {})}
    config = {**file.config({**environment, **own}), **own}
    made = call(file, body_of(test, file.folder), test.get("method", "POST"), headers, config)
    return locally.call(image, made, limits(file))


def remote(file: FuncFile, test: Mapping[str, Any], app: str, target: platform.Platform) -> Outcome:
    """Run a test by a call of the app's route; of an async one, wait for the result."""
    headers = {**test.get("env", {}), **test.get("headers", {})}
    if file.get("jwt_key"):
        headers["Authorization"] = f"Bearer {tokens.sign(file.get('jwt_key'), time.time())}"
    path = platform.call_path(app, file.route_path)
    body = body_of(test, file.folder)
    begun = time.monotonic()
    method = test.get("method", "POST")
    answer = target.fetch(method, path, body, headers=headers, patient=True)
    call_id = answer.headers.get("X-Call-Id", "")
    status, said = answer.status, answer.body
    if status == _ACCEPTED and file.get("type") == "async":
        status, said = _result(target, call_id)
    elapsed_s = time.monotonic() - begun
    log = _log(target, call_id) if "err" in test else b""
    failure = _failure(answer) if answer.status >= _BAD else ""
    return locally.Outcome(framing.Answer(status, (), said), failure, log, elapsed_s)


def _failure(answer: platform.Answer) -> str:
    """Return why a call failed; "" if it is the function's own answer."""
    said = answer.json()
    error = said.get("error") if isinstance(said, dict) and "request_id" in said else None
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def _ended(target: platform.Platform, call_id: str) -> dict[str, Any]:
    while True:
        path = platform.quoted("/v1/calls", call_id)
        record: dict[str, Any] = target.ask("GET", path, query={"wait": "30"})["call"]
        if record["status"] not in {"queued", "running", "delayed"}:
            return record


def _result(target: platform.Platform, call_id: str) -> tuple[int, bytes]:
    record = _ended(target, call_id)
    if record["status"] != "success":
        raise FnError(f"the call {call_id} ended with {record.get('code')}", "", Exit.FAILED)
    return 200, target.read("GET", f"{platform.quoted('/v1/calls', call_id)}/result").body


def _log(target: platform.Platform, call_id: str) -> bytes:
    _ended(target, call_id)
    return target.read("GET", f"{platform.quoted('/v1/calls', call_id)}/log").body


def judge(test: Mapping[str, Any], outcome: Outcome, folder: Path, number: int) -> Verdict:
    """Return what a test has shown, from what became of its call."""
    faults = []
    may_fail = "err" in test
    if outcome.failure and not may_fail:
        faults += [f"the call failed: {outcome.failure}", *_log_lines(outcome.log)]
    faults += _status_faults(
        test, outcome.answer.status, may_fail=may_fail or bool(outcome.failure)
    )
    if "out" in test and not (outcome.failure and faults):
        faults += differences(str(test["out"]).encode(), outcome.answer.body)
    if "out_file" in test and not (outcome.failure and faults):
        faults += differences(_file(folder, test["out_file"]), outcome.answer.body, exact=True)
    if may_fail and test["err"].strip() not in outcome.log.decode(errors="replace"):
        faults += [f"the log lacks {test['err'].strip()!r}", *_log_lines(outcome.log)]
    return Verdict(str(test.get("name") or f"test {number}"), faults, outcome.elapsed_s)


def _status_faults(test: Mapping[str, Any], status: int, *, may_fail: bool) -> list[str]:
    if "status" in test:
        wanted = test["status"]
        return [] if status == wanted else [f"its status is {status}, and should be {wanted}"]
    return [f"its status is {status}"] if status >= _BAD and not may_fail else []


def _log_lines(log: bytes) -> list[str]:
    lines = log.decode(errors="replace").splitlines()[-_DIFF_MAX_LINES:]
    return [f"log: {line}" for line in lines]


def differences(wanted: bytes, got: bytes, *, exact: bool = False) -> list[str]:
    r"""Return how an answer differs from what it should be, a line each; pure.

    Line ends at the very end do not count, unless `exact`.

    >>> differences(b"a", b"a\n")
    []
    >>> differences(b"a", b"b")
    ['--- should be', '+++ is', '@@ -1 +1 @@', '-a', '+b']
    """
    if not exact:
        wanted, got = wanted.rstrip(b"\r\n"), got.rstrip(b"\r\n")
    if wanted == got:
        return []
    try:
        old, new = wanted.decode().splitlines(), got.decode().splitlines()
    except UnicodeDecodeError:
        at = next(
            (i for i, (a, b) in enumerate(zip(wanted, got)) if a != b), min(len(wanted), len(got))
        )
        return [f"{len(got)} bytes, and should be {len(wanted)}; they differ from byte {at} on"]
    if old == new:
        return ["its line ends or its last line differ"]
    lines = difflib.unified_diff(old, new, "should be", "is", lineterm="")
    return list(lines)[:_DIFF_MAX_LINES]
