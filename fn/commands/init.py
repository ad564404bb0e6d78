"""How does a function begin? `fn init`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from fn import building, funcfields, funcfile, languages, output
from fn.commanding import examples
from fn.errors import Exit, FnError

#: What a new function is tested by.
_TESTS = [
    {"name": "greets the world", "out": "Hello, World!"},
    {"name": "greets whom it is told of", "in": "Ada", "out": "Hello, Ada!"},
]


@click.command(
    epilog=examples(
        "fn init --runtime python me/greet",
        "fn init --runtime node --format json me/greet",
        "fn init me/greet      (in a folder with func.py, func.go, ... or a Dockerfile)",
    )
)
@click.argument("name", metavar="[USER/NAME]", required=False, default="")
@click.option("-f", "--force", is_flag=True, help="Write func.yaml anew; code stays as it is.")
@click.option("--runtime", default="", metavar="LANGUAGE", help="Default: what the files tell.")
@click.option("--entrypoint", default="", metavar="COMMAND", help="What is started.")
@click.option("--cmd", default="", metavar="ARGUMENTS", help="Its arguments.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(funcfields.FORMATS),
    default="default",
    help="How a call reaches the process.",
)
@click.option("--max-concurrency", type=click.IntRange(1), default=1, help="Most hot sandboxes.")
def init(
    name: str,
    runtime: str,
    entrypoint: str,
    cmd: str,
    format_: str,
    *,
    max_concurrency: int,
    force: bool,
) -> None:
    """Make a function here: func.yaml, and a small function with tests if there is no code yet."""
    folder = Path.cwd()
    fields: dict[str, Any] = {"name": _name(name or folder.name.lower())}
    found = funcfile.find(folder)
    if found and not force:
        raise FnError(
            f"{found.name} is here already", "fn init --force writes it anew.", Exit.REFUSED
        )
    language, version = _language(runtime, folder)
    fields |= {"version": funcfile.FIRST_VERSION, "runtime": f"{language}:{version}".rstrip(":")}
    for key, value in (("entrypoint", entrypoint), ("cmd", cmd)):
        if value:
            fields[key] = value
    fields["path"] = "/" + fields["name"].rpartition("/")[2]
    if format_ != "default":
        fields["format"] = format_
    if max_concurrency > 1:
        fields["max_concurrency"] = max_concurrency
    written = [] if language == languages.DOCKER else _begin(folder, language, format_, fields)
    path = found or folder / "func.yaml"
    path.write_text(text_of(fields, json=path.suffix == ".json"), encoding="utf-8")
    output.show(
        {"written": [path.name, *written]},
        "",
        f"{', '.join([path.name, *written])} created\n"
        "Next: fn test --build, then fn deploy APP and fn call APP " + fields["path"],
    )


def _name(name: str) -> str:
    try:
        return funcfields.name(name)
    except funcfields.Wrong as error:
        hint = error.hint or "For example: fn init --runtime python me/greet"
        raise FnError(f"the name {error}", hint) from None


def _language(runtime: str, folder: Path) -> tuple[str, str]:
    """Return the language and the version that were asked for, or that the files speak of."""
    names = [path.name for path in folder.iterdir()]
    word = runtime or languages.detect(names, has_binary=building.is_program(folder / "func"))
    if not word:
        raise FnError(
            "there is no code here that tells the runtime",
            f"Choose one: --runtime {', '.join(languages.LANGUAGES)}; or bring a Dockerfile.",
        )
    language, version = languages.split(word)
    if language == languages.DOCKER and "Dockerfile" not in names:
        raise FnError(
            "there is no Dockerfile here", "Write one first; any image that reads stdin will do."
        )
    return language, version


def _begin(folder: Path, name: str, format_: str, fields: dict[str, Any]) -> list[str]:
    """Write a small function if there is no code yet; return the names of its files."""
    language = languages.LANGUAGES[name]
    if languages.has_code(language, [path.name for path in folder.iterdir()]):
        return []
    if format_ not in language.formats:
        raise FnError(
            f"there is no {name} function of format {format_} to begin with",
            f"{name} has {', '.join(language.formats)}; with code here, any format will do.",
        )
    if language.build:
        fields["build"] = list(language.build)
    fields["tests"] = _TESTS
    files = languages.example(language, format_)
    written = [one for one in sorted(files) if not (folder / one).exists()]
    for one in written:
        (folder / one).write_text(files[one], encoding="utf-8")
    return written


def text_of(fields: dict[str, Any], *, json: bool = False) -> str:
    """Return the text of a function's file; pure."""
    if json:
        return output.as_json(fields) + "\n"
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(fields, stream)
    return stream.getvalue()
