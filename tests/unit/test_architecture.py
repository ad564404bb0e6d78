"""Do the imports keep their arrows? Services import `shared` alone, and pure modules stay pure."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("api", "scheduler", "runner")
#: Which third-party package only one place may import.
ALONE = {"aiodocker": "services/runner", "aiomysql": "services/api", "alembic": "services/api"}
IMPURE = {"asyncio", "aiohttp", "aiodocker", "aiomysql", "redis", "time", "random", "os", "socket"}
#: Modules without I/O and without a clock, beside those whose docstring says that they are pure.
PURE = {
    "shared/errors.py",
    "shared/messages.py",
    "shared/keys.py",
    "shared/environment.py",
    "shared/urls.py",
    "shared/timestamps.py",
    "shared/settings.py",
    "services/scheduler/fleet.py",
    "services/scheduler/ledger.py",
    "services/scheduler/placement.py",
    "services/scheduler/backlog.py",
    "services/scheduler/state.py",
    "services/runner/state.py",
    "services/runner/pool.py",
    "services/runner/protocol.py",
    "services/runner/runs.py",
    "services/runner/outcome.py",
    "services/runner/framing/answer.py",
    "services/runner/framing/fdk.py",
    "services/runner/framing/fields.py",
    "services/runner/framing/formats.py",
    "services/runner/framing/http1.py",
    "services/runner/framing/jsonlines.py",
    "services/runner/logbuffer.py",
    "services/api/models.py",
}


def sources() -> list[str]:
    found = [*(ROOT / "shared").rglob("*.py"), *(ROOT / "services").rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def says_that_it_is_pure(source: str) -> bool:
    docstring = ast.get_docstring(ast.parse((ROOT / source).read_text()))
    return re.search(r"\bPure\b", docstring or "") is not None


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("source", sources())
def test_imports_keep_their_arrows(source: str) -> None:
    names = set(imports(source))
    if source.startswith("shared/"):
        assert not {n for n in names if n.startswith("services")}, "shared knows no service"
    for service in SERVICES:
        if source.startswith(f"services/{service}/"):
            strangers = {
                n
                for n in names
                if n.startswith("services.") and not n.startswith(f"services.{service}")
            }
            assert not strangers, "services know only shared"
    for package, place in ALONE.items():
        if package in {n.partition(".")[0] for n in names}:
            assert source.startswith(place), f"{package} belongs to {place}"


@pytest.mark.parametrize(
    "source", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "fn").rglob("*.py"))
)
def test_the_client_knows_nothing_of_the_platform(source: str) -> None:
    assert not {n.partition(".")[0] for n in imports(source)} & {"services", "shared"}


@pytest.mark.parametrize("source", sources())
def test_the_platform_knows_nothing_of_the_client(source: str) -> None:
    assert "fn" not in {n.partition(".")[0] for n in imports(source)}


@pytest.mark.parametrize("source", [s for s in sources() if "/handlers/" in s])
def test_handlers_never_import_the_app(source: str) -> None:
    assert "services.api.app" not in set(imports(source))


@pytest.mark.parametrize("source", sorted(PURE | set(filter(says_that_it_is_pure, sources()))))
def test_pure_modules_have_no_effects(source: str) -> None:
    roots = {name.partition(".")[0] for name in imports(source)}
    assert not roots & IMPURE
    assert "shared.clock" not in set(imports(source))


def test_the_environment_is_read_at_the_edge_only() -> None:
    readers = [s for s in sources() if "os.environ" in (ROOT / s).read_text()]
    assert all(s.endswith("__main__.py") for s in readers), readers


def test_no_import_cycles() -> None:
    known = {s.removesuffix(".py").replace("/", "."): s for s in sources()}
    graph = {name: {n for n in imports(s) if n in known} for name, s in known.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())
