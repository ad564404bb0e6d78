"""Which languages does `fn` know, and which one is a folder's? Pure but for reading its own files.

What a language's functions are made of stands in `fn/runtimes/<language>/`: how its image is built
(`Dockerfile`, a template), what it stands on (`base.Dockerfile`) and is built in
(`dev.Dockerfile`), and a small function for each format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

from fn import spelling
from fn.errors import FnError

if TYPE_CHECKING:
    from collections.abc import Collection
    from importlib.abc import Traversable

DOCKER = "docker"


@dataclass(frozen=True)
class Language:
    """What functions of one language have in common."""

    name: str
    #: Of the base image: what Debian has.
    version: str
    #: The file by which it is known, and that a new function is written into.
    source: str
    entrypoint: list[str]
    #: In which a new function can be written.
    formats: tuple[str, ...] = ("default", "json")
    aliases: tuple[str, ...] = ()
    #: By format, where it is not `entrypoint`.
    entrypoints: dict[str, list[str]] = field(default_factory=dict)
    #: Further files by which it is known.
    signs: tuple[str, ...] = ()
    #: The file that names dependencies; "" if there is none.
    manifest: str = ""
    #: Whether functions are built in an image of its own, `<version>-dev`.
    has_dev: bool = False
    #: Whether there is a base image; without one, functions stand on nothing.
    has_base: bool = True
    #: Lines for `build:` of a new function.
    build: tuple[str, ...] = ()


_PYTHON = Language(
    "python", "3.11", "func.py", ["python3", "func.py"],
    formats=("default", "http", "json", "http-stream"), aliases=("python3", "py"),
    entrypoints={"http-stream": ["fdk", "func.py", "handler"]}, manifest="requirements.txt",
)  # fmt: skip
_NODE = Language(
    "node", "18", "func.js", ["node", "func.js"],
    formats=("default", "http", "json", "http-stream"), aliases=("nodejs", "js", "javascript"),
    manifest="package.json", has_dev=True,
)  # fmt: skip
_GO = Language(
    "go", "1.19", "func.go", ["/function/func"], signs=("main.go", "go.mod"),
    formats=("default", "http", "json", "http-stream"), aliases=("golang",), manifest="go.mod",
    has_dev=True, has_base=False,
)  # fmt: skip
_RUST = Language(
    "rust", "1.63", "func.rs", ["/function/func"], formats=("default", "http"), aliases=("rs",),
    signs=("Cargo.toml",), manifest="Cargo.toml", has_dev=True,
)  # fmt: skip
_JAVA = Language(
    "java", "17", "Func.java",
    ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "/function:lib/*", "Func"],
    formats=("default", "http"), aliases=("jvm",), signs=("func.java",), has_dev=True,
)  # fmt: skip
_BINARY = Language(
    "binary", "", "func", ["/function/func"], formats=("default", "http"),
    aliases=("static", "c", "scratch"), signs=("func.c",), has_base=False,
    build=("cc -static -Os -s -o func func.c",),
)  # fmt: skip
LANGUAGES: dict[str, Language] = {
    language.name: language
    for language in (
        _PYTHON,
        _NODE,
        _GO,
        Language(
            "ruby", "3.1", "func.rb", ["ruby", "func.rb"], aliases=("rb",), manifest="Gemfile"
        ),
        Language("php", "8.2", "func.php", ["php", "func.php"]),
        _RUST,
        _JAVA,
        Language("bash", "5.2", "func.sh", ["bash", "func.sh"], aliases=("sh", "shell")),
        _BINARY,
    )
}

#: Runtimes of the original that have no image here.
_ABSENT = {
    "func.cs": "dotnet", "func.fs": "dotnet",
}  # fmt: skip


def split(runtime: str) -> tuple[str, str]:
    """Return the language's name and the version that a `runtime` asks for ("" for the usual one).

    Raises `FnError` for a language that is not known. `docker` is a Dockerfile of one's own.

    >>> split("py:3.11")
    ('python', '3.11')
    """
    word, _, version = runtime.strip().lower().partition(":")
    if word in {DOCKER, "dockerfile"}:
        return DOCKER, ""
    names = {alias: one.name for one in LANGUAGES.values() for alias in (one.name, *one.aliases)}
    if word not in names:
        raise FnError(
            f"there is no runtime `{word}`{spelling.suggestion(word, names)}",
            f"The runtimes are {', '.join(LANGUAGES)}, and {DOCKER} for a Dockerfile of your own.",
        )
    return names[word], version


def detect(names: Collection[str], *, has_binary: bool = False) -> str:
    """Return the runtime that a folder's files speak of, "" if they speak of none.

    A Dockerfile comes first. `has_binary`: the file `func` is a program that can be started.

    >>> detect(["func.py", "README.md"])
    'python'
    """
    if "Dockerfile" in names:
        return DOCKER
    for language in LANGUAGES.values():
        if language is not _BINARY and language.source in names:
            return language.name
    for name, runtime in _ABSENT.items():
        if name in names:
            raise FnError(
                f"{name}: there is no runtime {runtime} here",
                "Write a Dockerfile beside it; any image that reads stdin is a function.",
            )
    if has_binary:
        return _BINARY.name
    return next((one.name for one in LANGUAGES.values() if set(one.signs) & set(names)), "")


def has_code(language: Language, names: Collection[str]) -> bool:
    """Return whether a folder has code of a language already.

    >>> has_code(LANGUAGES["go"], ["main.go"]), has_code(LANGUAGES["go"], ["go.mod"])
    (True, False)
    """
    code = {language.source, *language.signs} - {language.manifest}
    return bool(code & set(names))


def entrypoint(language: Language, format_: str) -> list[str]:
    """Return what is started in a function's container."""
    return language.entrypoints.get(format_, language.entrypoint)


def folder(language: Language) -> Traversable:
    """Return the folder with what a language's functions are made of."""
    return resources.files("fn") / "runtimes" / language.name


def template(language: Language) -> str:
    """Return how its images are built; see `dockerfile.render`."""
    return (folder(language) / "Dockerfile").read_text(encoding="utf-8")


def recipe(language: Language, *, dev: bool) -> str:
    """Return the Dockerfile of its base image, or of the one that functions are built in."""
    name = "dev.Dockerfile" if dev else "base.Dockerfile"
    return (folder(language) / name).read_text(encoding="utf-8")


def example(language: Language, format_: str) -> dict[str, str]:
    """Return the files of a small function, by name."""
    files = (folder(language) / format_).iterdir()
    return {
        one.name: one.read_text(encoding="utf-8")
        for one in files
        if one.is_file() and not one.name.endswith(".pyc")
    }
