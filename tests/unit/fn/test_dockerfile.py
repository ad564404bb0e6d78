"""Is a function's Dockerfile what its folder needs, and is the line found where it failed?"""

from pathlib import Path

import pytest

from fn import building, dockerfile, funcfile, imagenames, languages
from fn.errors import Exit

PYTHON, NODE, GO = (languages.LANGUAGES[name] for name in ("python", "node", "go"))
VALUES = {"base": "BASE", "build_base": "DEV", "target": "."}


def rendered(language: languages.Language, *facts: str) -> str:
    return dockerfile.render(languages.template(language), set(facts), VALUES)


def test_without_dependencies_there_is_one_stage() -> None:
    text = rendered(PYTHON)
    assert text.count("FROM ") == 1
    assert "pip" not in text


def test_dependencies_are_a_layer_that_only_their_list_changes() -> None:
    lines = rendered(PYTHON, "module", "dependencies").splitlines()
    copies = [line for line in lines if line.startswith("COPY function")]
    assert copies == ["COPY function/requirements.txt /function/", "COPY function ./"]
    install = next(i for i, line in enumerate(lines) if "pip install" in line)
    assert lines.index(copies[0]) < install < lines.index(copies[1])


def test_wheels_beside_the_list_need_no_index() -> None:
    assert "PIP_NO_INDEX=1" in rendered(PYTHON, "module", "dependencies", "wheels")
    assert "PIP_NO_INDEX" not in rendered(PYTHON, "module", "dependencies")


@pytest.mark.parametrize("language", [PYTHON, NODE])
def test_a_certificate_stays_in_the_build(language: languages.Language) -> None:
    text = rendered(language, "module", "dependencies", "ca")
    assert "ca.crt" in text
    assert "ca.crt" not in text.rpartition("FROM ")[2]


def test_vendored_go_downloads_nothing() -> None:
    assert "go mod download" in rendered(GO, "module", "download")
    assert "go mod download" not in rendered(GO, "module")


@pytest.mark.parametrize("language", languages.LANGUAGES.values(), ids=lambda one: one.name)
def test_every_template_is_whole(language: languages.Language) -> None:
    facts = ("module", "dependencies", "wheels", "ca", "download")
    for chosen in [(), facts]:
        text = rendered(language, *chosen)
        assert "{{" not in text
        assert "#" not in text
        assert "USER 65534:65534" in text


def staged(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / "function" / name.replace("_json", ".json").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_list_of_nothing_is_no_list(tmp_path: Path) -> None:
    context = staged(tmp_path, requirements_txt="# none yet\n\n")
    assert "dependencies" not in building.facts_of(PYTHON, context)


def test_a_package_file_without_dependencies_installs_nothing(tmp_path: Path) -> None:
    assert "dependencies" not in building.facts_of(NODE, staged(tmp_path, package_json="{}"))
    context = staged(tmp_path, package_json='{"dependencies": {"a": "1"}}')
    assert "dependencies" in building.facts_of(NODE, context)


@pytest.mark.parametrize(
    ("lines", "made", "message", "hint"),
    [
        (
            [
                "Step 1/2 : FROM a",
                "Step 2/2 : RUN x",
                "The command 'x' returned a non-zero code: 1",
            ],
            "FROM a\n\nRUN x\n",
            "the build failed at line 3 of the Dockerfile: RUN x",
            "The command 'x' returned a non-zero code: 1",
        ),
        (
            ["Error response from daemon: dockerfile parse error line 2: unknown instruction: RUM"],
            "FROM a\nRUM x\n",
            "the build failed at line 2 of the Dockerfile: RUM x",
            "Error response from daemon: dockerfile parse error line 2: unknown instruction: RUM",
        ),
        (
            ["Dockerfile:2", "ERROR: failed to solve: process x did not complete: exit code: 1"],
            "FROM a\nRUN x\n",
            "the build failed at line 2 of the Dockerfile: RUN x",
            "ERROR: failed to solve: process x did not complete: exit code: 1",
        ),
    ],
)
def test_a_failed_build_names_the_line(
    lines: list[str], made: str, message: str, hint: str
) -> None:
    error = building.failure(lines, made)
    assert (error.message, error.hint, error.code) == (message, hint, Exit.FAILED)


def test_an_engine_that_does_not_answer_is_no_failed_line() -> None:
    said = "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"
    error = building.failure([said], "FROM a\n")
    assert error.message == "the container engine does not answer"
    assert error.code == Exit.UNREACHABLE


def function(folder: Path, text: str) -> funcfile.FuncFile:
    (folder / "func.yaml").write_text(text)
    return funcfile.load(folder)


def test_the_digest_of_the_source_looks_at_all_but_the_version(tmp_path: Path) -> None:
    (tmp_path / "func.py").write_text("1")
    first = building.source_digest(function(tmp_path, "name: a\nversion: 0.0.1\n"))
    assert building.source_digest(function(tmp_path, "name: a\nversion: 0.0.2\n")) == first
    assert building.source_digest(function(tmp_path, "name: a\nmemory: 256\n")) != first
    (tmp_path / "func.py").write_text("2")
    assert building.source_digest(function(tmp_path, "name: a\nversion: 0.0.1\n")) != first


@pytest.mark.parametrize(
    ("name", "hub", "whole"),
    [
        ("me/greet", "127.0.0.1:5000", "127.0.0.1:5000/me/greet:1.0.0"),
        ("greet", "hub.example.com", "hub.example.com/greet:1.0.0"),
        ("localhost/greet", "h:1", "localhost/greet:1.0.0"),
        ("host:5000/me/greet", "h:1", "host:5000/me/greet:1.0.0"),
        ("a.b/greet", "h:1", "a.b/greet:1.0.0"),
        ("me/greet", "", "me/greet:1.0.0"),
    ],
)
def test_whole_names(name: str, hub: str, whole: str) -> None:
    assert imagenames.full(name, "1.0.0", hub) == whole
    assert imagenames.latest(whole) == whole.replace(":1.0.0", ":latest")
