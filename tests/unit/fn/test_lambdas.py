"""Does a function of AWS Lambda become one of ours, or a line that says why not?"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fn import lambdas
from fn.errors import FnError

TOLD: dict[str, Any] = {
    "Configuration": {
        "Runtime": "python3.9",
        "Handler": "index.handler",
        "Timeout": 3,
        "MemorySize": 256,
        "Environment": {"Variables": {"PRICE": "5$"}},
    },
    "Code": {"Location": "https://example.com/code.zip"},
}


def test_what_aws_tells_becomes_a_functions_file() -> None:
    fields = lambdas.fields(lambdas.described(TOLD), "me/old", "python", '{"a": 1}')
    assert fields == {
        "name": "me/old",
        "version": "0.0.1",
        "runtime": "python",
        "path": "/old",
        "memory": 256,
        "timeout": "3s",
        "config": {"PRICE": "5$$"},
        "tests": [{"name": "answers", "in": '{"a": 1}'}],
    }


def test_python_handlers_are_called(tmp_path: Path) -> None:
    language, name, text = lambdas.adapter(lambdas.described(TOLD))
    assert (language, name) == ("python", "func.py")
    (tmp_path / name).write_text(text)
    body = "def handler(event, context):\n    print('log')\n    return {'got': event}\n"
    (tmp_path / "index.py").write_text(body)
    done = subprocess.run(
        [sys.executable, name], cwd=tmp_path, input=b'{"a": 1}', capture_output=True, check=True
    )
    assert json.loads(done.stdout) == {"got": {"a": 1}}
    assert done.stderr == b"log\n"


@pytest.mark.parametrize(
    ("runtime", "handler", "words"),
    [
        ("java8", "a.b", "no adapter for Lambda's runtime java8"),
        ("", "a.b", "no adapter"),
        ("python3.9", "handler", "no module.function"),
    ],
)
def test_what_cannot_come_here_is_told(runtime: str, handler: str, words: str) -> None:
    with pytest.raises(FnError, match=words):
        lambdas.adapter(lambdas.Lambda(runtime, handler))
