"""Does each command that shows something show it as JSON, as YAML and as a table?"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.integration.fn.conftest import FakePlatform, Run

ID = "01a20f12-cf31-7738-9761-59bdaf85e97e"
APP = {"name": "demo", "config": {"A": "1"}}
ROUTE = {
    "app_name": "demo",
    "path": "/p",
    "image": "i:2",
    "headers": {"X-A": ["1", "2"]},
    "previous_images": ["i:1"],
    "jwt_key": "k",
}
CALL = {
    "id": ID,
    "app_name": "demo",
    "path": "/p",
    "status": "success",
    "code": None,
    "error": None,
    "created_at": "2026-01-31T12:00:00Z",
    "started_at": None,
    "completed_at": None,
}
RUNNER = {
    "id": "runner-1",
    "name": "host-1",
    "engine_id": "E",
    "able": True,
    "draining": False,
    "running": 0,
    "sandboxes": [],
    "memory_mb": 1,
    "cpus": 1.0,
    "arch": "amd64",
    "seen_ago_ms": 1,
}
LETTER = {
    "call_id": ID,
    "app_name": "demo",
    "path": "/p",
    "code": "runner_lost",
    "error": "the runner of this call is gone",
    "attempt": 3,
    "redriven_as": None,
    "died_at": "2026-01-31T12:00:00Z",
}
ANSWERS: dict[str, Any] = {
    "GET /version": {"version": "9"},
    "GET /v1/apps": {"apps": [APP]},
    "POST /v1/apps": {"app": APP},
    "GET /v1/apps/demo": {"app": APP},
    "PATCH /v1/apps/demo": {"app": APP},
    "DELETE /v1/apps/demo": {"message": "App deleted"},
    "GET /v1/apps/demo/routes": {"routes": [ROUTE]},
    "POST /v1/apps/demo/routes": {"route": ROUTE},
    "GET /v1/apps/demo/routes/p": {"route": ROUTE},
    "PATCH /v1/apps/demo/routes/p": {"route": ROUTE},
    "DELETE /v1/apps/demo/routes/p": {"message": "Route deleted"},
    "GET /v1/apps/demo/calls": {"calls": [CALL], "next_cursor": ""},
    f"GET /v1/calls/{ID}": {"call": CALL},
    f"GET /v1/calls/{ID}/log": b"a line\n",
    "GET /v1/runners": {"runners": [RUNNER]},
    "POST /v1/runners/host-1/drain": {"runners": [RUNNER]},
    "DELETE /v1/runners/host-1/drain": {"runners": [RUNNER]},
    "GET /v1/apps/demo/dead-letters": {"dead_letters": [LETTER], "next_cursor": ""},
    f"GET /v1/apps/demo/dead-letters/{ID}": {"dead_letter": LETTER},
    "GET /r/demo/p": b"answer",
}
COMMANDS = (
    "apps list",
    "apps create demo",
    "apps inspect demo",
    "apps inspect demo config",
    "apps inspect demo config.A",
    "apps update demo -c A=1",
    "apps delete demo",
    "apps config set demo A 1",
    "apps config unset demo A",
    "routes list demo",
    "routes create demo /p i:2",
    "routes inspect demo /p",
    "routes inspect demo /p headers.X-A",
    "routes update demo /p i:2",
    "routes delete demo /p",
    "routes config set demo /p A 1",
    "routes config unset demo /p A",
    "routes headers set demo /p X-A 1",
    "routes headers unset demo /p X-A",
    "routes token demo /p",
    "routes rollback demo /p",
    "call demo /p",
    "calls list demo",
    f"calls show {ID}",
    f"calls wait {ID}",
    "logs demo",
    f"logs demo {ID}",
    "runners",
    "runners drain host-1",
    "runners undrain host-1",
    "dead-letters list demo",
    f"dead-letters show demo {ID}",
    "context list",
    "context add lab http://10.0.0.1:8080",
    "context use default",
    "token",
    "version",
    "bump",
    "init -f --runtime python me/greet",
    "doctor",
)
READERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "yaml": YAML(typ="safe", pure=True).load,
}


@pytest.fixture(autouse=True)
def platform(
    fake: FakePlatform, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakePlatform:
    """One that knows one of each, and a folder with a function."""
    del run  # It sets the environment first.
    monkeypatch.setenv("JWT_AUTH_KEY", "key")
    (tmp_path / "func.yaml").write_text("name: me/greet\nversion: 0.0.1\n")
    monkeypatch.chdir(tmp_path)
    for request, body in ANSWERS.items():
        fake.answer(request, body)
    return fake


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("command", COMMANDS)
def test_programs_can_read_it(command: str, form: str, run: Run) -> None:
    said = run(*command.split(), "-o", form)
    assert READERS[form](said.out), said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_was_an_empty_line(command: str, run: Run) -> None:
    said = run(*command.split(), "-o", "table")
    head, *rows = said.out.splitlines()
    assert head, said
    assert rows or command == "apps inspect demo config.A", said


def test_the_clients_version_is_told_without_a_platform_too(run: Run) -> None:
    ended = run("version", "-o", "json", API_URL="http://127.0.0.1:1")
    assert ended.code == 5
    assert json.loads(ended.out)["server"] is None


def test_long_text_was_folded_in_yaml(run: Run) -> None:
    assert run("token", "-o", "yaml").out.count("\n") == 1
