"""What does a function of AWS Lambda become here? Pure, but for reading the adapters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from fn.errors import FnError

#: By the beginning of Lambda's runtime: the language here, the adapter, and its name in the folder.
_ADAPTERS = {"python": ("python", "python.py", "func.py"), "nodejs": ("node", "node.js", "func.js")}


@dataclass(frozen=True)
class Lambda:
    """What Lambda says of a function."""

    runtime: str
    #: module.function
    handler: str
    timeout_s: int = 30
    memory_mb: int = 128
    environment: dict[str, str] = field(default_factory=dict)
    #: Where its code can be had, for some minutes.
    location: str = ""


def described(told: dict[str, Any]) -> Lambda:
    """Return what `aws lambda get-function` told. Raises `FnError` for what is no function."""
    try:
        said = told["Configuration"]
        return Lambda(
            runtime=str(said.get("Runtime", "")),
            handler=str(said.get("Handler", "")),
            timeout_s=int(said.get("Timeout", 30)),
            memory_mb=int(said.get("MemorySize", 128)),
            environment=dict(said.get("Environment", {}).get("Variables", {})),
            location=str(told.get("Code", {}).get("Location", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FnError(f"AWS told of no function: {error!r}") from error


def adapter(found: Lambda) -> tuple[str, str, str]:
    """Return language, file name and text of what calls the handler. Raises `FnError`."""
    for beginning, (language, source, name) in _ADAPTERS.items():
        if found.runtime.startswith(beginning):
            module, dot, function = found.handler.rpartition(".")
            if not dot:
                raise FnError(
                    f"the handler {found.handler!r} is no module.function",
                    "Name it: --handler index.handler",
                )
            text = (resources.files("fn") / "runtimes" / "lambda" / source).read_text("utf-8")
            own = module.replace("/", ".") if language == "python" else module
            return language, name, text.replace("{{module}}", own).replace("{{function}}", function)
    raise FnError(
        f"there is no adapter for Lambda's runtime {found.runtime or '(none)'}",
        "There are those for python and nodejs; --download-only gets the code of any.",
    )


def fields(found: Lambda, name: str, language: str, payload: str) -> dict[str, Any]:
    """Return what func.yaml says of it."""
    config = {key: value.replace("$", "$$") for key, value in found.environment.items()}
    return {
        "name": name,
        "version": "0.0.1",
        "runtime": language,
        "path": "/" + name.rpartition("/")[2],
        "memory": found.memory_mb,
        "timeout": f"{math.ceil(found.timeout_s)}s",
        **({"config": config} if config else {}),
        "tests": [{"name": "answers", "in": payload}],
    }
