"""Are the documents complete? Every error, setting, route of the api, and command is in them."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

import services.api.settings
import services.runner.settings
import services.scheduler.settings
from fn import contexts, funcfields, languages
from fn.errors import Exit
from services.api import app
from shared import errors
from tests.bench import cases

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "api": services.api.settings.Settings,
    "scheduler": services.scheduler.settings.Settings,
    "runner": services.runner.settings.Settings,
}


def text(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", errors.CODES)
def test_every_error_is_documented(name: str) -> None:
    row = errors.CODES[name]
    line = f"| `{row.word}` | {row.status} | {row.fault} | {row.meaning} |"
    assert line in text("docs/errors.md")


def test_no_error_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^\| `(\w+)` \| (\d+)", text("docs/errors.md"), re.MULTILINE)
    assert sorted(documented) == sorted((c.word, str(c.status)) for c in errors.CODES.values())


@pytest.mark.parametrize("code", Exit)
def test_every_exit_code_of_the_client_is_documented(code: Exit) -> None:
    assert f"\n| {code.value} | " in text("docs/fn.md")


@pytest.mark.parametrize("variable", contexts.VARIABLES.values())
def test_every_variable_of_the_client_is_documented(variable: str) -> None:
    assert f"\n| `{variable}` | " in text("docs/fn.md")


def settings_lines() -> list[tuple[str, str]]:
    lines = []
    for service, kind in SETTINGS.items():
        for field in dataclasses.fields(kind):
            unit = field.metadata["unit"]
            default = f"`{field.default}`" if field.default != "" else "none"
            sentence = field.metadata["sentence"]
            lines.append((service, f"| `{field.name.upper()}` | {default} | {unit} | {sentence} |"))
    return lines


@pytest.mark.parametrize(("service", "line"), settings_lines(), ids=lambda v: str(v)[:40])
def test_every_setting_is_documented(service: str, line: str) -> None:
    _, _, section = text("docs/settings.md").partition(f"## {service}\n")
    assert line in section.partition("\n## ")[0]


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_is_read(service: str) -> None:
    """Who sets one that nobody reads waits for an effect that never comes."""
    modules = [
        path for path in (ROOT / "services" / service).rglob("*.py") if path.stem != "settings"
    ]
    code = "\n".join(path.read_text() for path in modules)
    names = [field.name for field in dataclasses.fields(SETTINGS[service])]
    assert [name for name in names if not re.search(rf"\.{name}\b", code)] == []


def test_every_route_of_the_api_is_documented() -> None:
    documented = text("docs/api.md")
    for path in app.documented_paths():
        assert f"`{path}`" in documented or f" {path}`" in documented, path


def test_every_case_of_the_benchmark_is_documented_in_its_order() -> None:
    _, _, section = text("docs/benchmarks.md").partition("## The cases\n")
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == [*cases.CASES]


def test_every_field_of_a_functions_file_is_documented() -> None:
    documented = text("docs/func-yaml.md")
    for name, rule in [*funcfields.FIELDS.items(), *funcfields.TEST_FIELDS.items()]:
        line = f"| `{name}` | `{rule.example}` | {rule.sentence} |"
        assert line in documented or (rule.name and f"`{name}`" in documented), name


def test_every_runtime_is_documented() -> None:
    documented = text("docs/runtimes.md")
    for name, one in languages.LANGUAGES.items():
        formats = ", ".join(f"`{format_}`" for format_ in one.formats)
        assert f"| `{name}` | {one.version or '-'} | `{one.source}` | {formats} |" in documented


COMMANDS = text("README.md") + text("CONTRIBUTING.md")


def test_every_command_is_documented() -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)
    assert len(targets) > 8
    missing = [t for t in targets if f"make {t}" not in COMMANDS]
    assert not missing


def test_help_fits_one_screen() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


def documents() -> list[Path]:
    found = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in found.stdout.split()]


@pytest.mark.parametrize("document", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert not missing


def test_what_has_shown_each_failure_is_there() -> None:
    page = text("docs/operating/failures.md")
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert not set(re.findall(r"`(test_\w+\.py)`", page)) - tests
    programs = {f"tests.chaos.{path.stem}" for path in (ROOT / "tests/chaos").glob("*.py")}
    assert not set(re.findall(r"`(tests\.chaos\.\w+)`", page)) - programs


def test_every_file_of_services_and_client_is_in_the_architecture() -> None:
    told = text("ARCHITECTURE.md")
    files = [f for folder in ("services", "shared", "fn") for f in (ROOT / folder).rglob("*.py")]
    # Migrations are numbered, and what the client makes functions of is named by languages.
    left_out = {"versions", "runtimes"}
    names = {f.name for f in files if f.name != "__init__.py" and not left_out & {*f.parts}}
    assert not {name for name in names if f"`{name}`" not in told and f"/{name}`" not in told}
