"""How does a function's folder become an image? Its build lines, its base, the engine's build."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fn import dockerfile, engine, imagenames, languages, output
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fn.funcfile import FuncFile

#: The label in which an image remembers what it was made of.
SOURCE_LABEL = "millrace.source"
CA_FILE = "ca.crt"
_FUNCTION = "function"
#: Who else on this machine was told of an authority's certificate, the first one counts.
_CA_VARIABLES = (
    "FN_CA_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE",
)  # fmt: skip
#: What package managers are told on this machine, they are told in a build too.
_PASSED_ON = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT",
    "NPM_CONFIG_REGISTRY", "GOPROXY", "GOFLAGS", "GOSUMDB", "GONOSUMDB", "GOPRIVATE",
)  # fmt: skip
_NEVER_IN_IMAGES = (
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__", "*.pyc", ".pytest_cache",
    ".mypy_cache", ".ruff_cache", ".env", "func.yaml", "func.yml", "func.json",
)  # fmt: skip
_LAST_LINES = 20
#: A step's beginning, as the older builder and the newer one write it.
_STEP = re.compile(r"(?:Step |#\d+ \[(?:\S+ )?)(\d+)/(\d+)(?: :|\]) (.*)")
_STEP_CHARS = 60


@dataclass(frozen=True)
class Options:
    """How images are to be built."""

    hub: str = ""
    verbose: bool = False
    no_cache: bool = False
    #: The image to stand on, instead of the runtime's.
    base: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def build(file: FuncFile, version: str, options: Options) -> str:
    """Build a function's image; return its whole name. Raises `FnError`."""
    _run_build_lines(file)
    image = imagenames.full(file.name, version, options.hub)
    labels = ("--label", f"{SOURCE_LABEL}={source_digest(file)}")
    if (file.folder / "Dockerfile").is_file():
        _build(file.folder, file.folder / "Dockerfile", image, labels, options)
        return image
    name, tag = _language(file)
    if name == languages.DOCKER:
        raise FnError(
            f"{file.path.name} says runtime: docker, and there is no Dockerfile beside it",
            f"Write one, or say runtime: {', '.join(languages.LANGUAGES)}.",
        )
    language = languages.LANGUAGES[name]
    with tempfile.TemporaryDirectory(prefix="fn-") as temporary:
        made = Path(temporary) / "Dockerfile"
        context = Path(temporary) / "context"
        _stage(file.folder, context, _ca_file(options.environment))
        made.write_text(_dockerfile(file, language, tag, context, options), encoding="utf-8")
        _build(context, made, image, labels, options)
    return image


def _language(file: FuncFile) -> tuple[str, str]:
    """Return language and version. Raises `FnError`, with the line if they are not known."""
    try:
        return languages.split(str(file.get("runtime") or _detected(file.folder)))
    except FnError as error:
        if not file.get("runtime"):
            raise
        where = file.where("runtime")
        raise FnError(f"{where}: {error.message}", error.hint, error.code) from None


def _detected(folder: Path) -> str:
    names = [path.name for path in folder.iterdir()]
    found = languages.detect(names, has_binary=is_program(folder / "func"))
    if not found:
        raise FnError(
            "func.yaml has no `runtime`, and there is no Dockerfile",
            f"Write runtime: {', '.join(languages.LANGUAGES)}, or a Dockerfile.",
        )
    return found


def is_program(path: Path) -> bool:
    """Return whether a file is a program for Linux."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _run_build_lines(file: FuncFile) -> None:
    for line in file.get("build", []):
        # Standard output is for results.
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=file.folder, stdout=sys.stderr.fileno(), check=False
        )
        if done.returncode:
            raise FnError(
                f"{file.path.name}: `build` line failed with exit code {done.returncode}: {line}",
                "It runs in the function's folder, on this machine, by /bin/sh.",
                Exit.FAILED,
            )


def source_digest(file: FuncFile) -> str:
    """Return a digest of all that a function's image and route are made of, but for the version."""
    digest = hashlib.sha256()
    said = {key: value for key, value in file.fields.items() if key != "version"}
    digest.update(json.dumps(said, sort_keys=True).encode())
    for path in _sources(file.folder):
        mode = path.lstat().st_mode
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        name = str(path.relative_to(file.folder))
        digest.update(f"\0{name}\0{mode:o}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    ignored = shutil.ignore_patterns(*_NEVER_IN_IMAGES)
    for where, folders, names in os.walk(folder):
        passed = ignored(where, [*folders, *names])
        folders[:] = sorted(set(folders) - passed)
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        yield from (Path(where) / name for name in sorted({*names, *links} - passed))


def _stage(folder: Path, context: Path, ca_file: Path | None) -> None:
    """Copy what is needed: the function's files to `function/`, what only its build sees beside."""
    inside = context / _FUNCTION
    ignored = shutil.ignore_patterns(*_NEVER_IN_IMAGES)
    shutil.copytree(folder, inside, symlinks=True, ignore=ignored)
    if (inside / "wheels").is_dir():
        shutil.move(str(inside / "wheels"), str(context / "wheels"))
    patterns = folder / ".dockerignore"
    if patterns.is_file():
        text = dockerfile.ignored_below(_FUNCTION, patterns.read_text(encoding="utf-8"))
        (context / ".dockerignore").write_text(text, encoding="utf-8")
    if ca_file:
        shutil.copyfile(ca_file, context / CA_FILE)


def _ca_file(environment: Mapping[str, str]) -> Path | None:
    named = (Path(environment[name]) for name in _CA_VARIABLES if environment.get(name))
    return next((path for path in named if path.is_file()), None)


def _dockerfile(
    file: FuncFile, language: languages.Language, tag: str, context: Path, options: Options
) -> str:
    facts = facts_of(language, context)
    base = options.base or str(file.get("base") or "") or _base(language, tag, options, dev=False)
    values = {"base": base, "target": "."}
    template = languages.template(language)
    if "{{build_base}}" in dockerfile.render(template, facts, {}):
        given = str(file.get("build_base") or "")
        values["build_base"] = given or _build_base(language, tag, base, options)
    if language.name == "go" and "module" not in facts:
        values["target"] = "*.go"
    lines = dockerfile.render(template, facts, values)
    usual = languages.entrypoint(language, file.format)
    return lines + dockerfile.start(file.get("entrypoint") or usual, file.get("cmd", []))


def facts_of(language: languages.Language, context: Path) -> set[str]:
    """Return what is true of a staged function, in the words of the templates."""
    inside = context / _FUNCTION
    found = set()
    manifest = inside / language.manifest if language.manifest else None
    if manifest and manifest.is_file():
        found.add("module")
        if _names_packages(manifest):
            found.add("dependencies")
    if (context / "wheels").is_dir():
        found.add("wheels")
    if (context / CA_FILE).is_file():
        found.add("ca")
    if not (inside / "vendor").is_dir():
        found.add("download")
    return found


def _names_packages(manifest: Path) -> bool:
    text = manifest.read_text(encoding="utf-8", errors="replace")
    if manifest.name != "package.json":
        return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())
    try:
        return bool(json.loads(text).get("dependencies"))
    except (ValueError, AttributeError) as error:
        raise FnError(
            f"package.json: not a JSON object: {error}", "Compare it with npm init's."
        ) from None


def _build_base(language: languages.Language, tag: str, base: str, options: Options) -> str:
    if not language.has_dev:
        return base
    return _base(language, tag, options, dev=True)


def _base(language: languages.Language, tag: str, options: Options, *, dev: bool) -> str:
    """Return the name of a base image that the engine has, getting it first if need be."""
    if not dev and not language.has_base:
        return "scratch"
    version = tag or language.version
    names = imagenames.bases(language.name, f"{version}-dev" if dev else version, options.hub)
    for name in names:
        # The hub's may be newer than what was once pulled from it: --no-cache looks there again.
        is_asked_again = options.no_cache and options.hub and name == names[0]
        if not is_asked_again and engine.has_image(name):
            return name
    if options.hub and _pull(names[0]):
        return names[0]
    if version != language.version:
        raise FnError(
            f"there is no base image {names[0]}",
            f"`{language.name}` has version {language.version}; --base or base: names any image.",
        )
    return make_base(language, names[-1], dev=dev)


def _pull(image: str) -> bool:
    """Get an image from its registry; return whether it is there."""
    with output.Progress(f"getting the base image {image}") as progress:

        def tell(line: str) -> None:
            layer = engine.LAYER.fullmatch(line)
            if layer:
                progress.part(layer[1], layer[2])

        code, _ = engine.follow("pull", image, each_line=tell)
    return not code


def make_base(language: languages.Language, name: str, *, dev: bool) -> str:
    """Build a base image from Debian's packages; return its name."""
    click.echo(f"building the base image {name}, once: this takes a minute or two", err=True)
    recipe = languages.recipe(language, dev=dev)
    arguments = [f"--build-arg={arg}={image}" for arg, image in _foundation(recipe)]
    said = engine.ask("build", "-t", name, *arguments, "-", stdin=recipe.encode())
    if said.code:
        raise engine.meaning(said.complaint) or FnError(
            f"cannot build the base image {name}: {said.complaint}",
            "make runtimes on the platform's machine builds all of them, for the hub too.",
            Exit.FAILED,
        )
    return name


def _foundation(recipe: str) -> Iterator[tuple[str, str]]:
    """Give what stands in for the recipe's own foundation where the platform was never set up."""
    elsewhere = {"DEBIAN": "debian:bookworm-slim", "PYTHON": "python:3.11-slim-bookworm"}
    for argument, image in re.findall(r"^ARG (\w+)=(\S+)$", recipe, re.MULTILINE):
        if not engine.has_image(image):
            yield argument, elsewhere[argument]


def _build(
    context: Path, made: Path, image: str, labels: tuple[str, ...], options: Options
) -> None:
    arguments = ["build", "-t", image, "-f", str(made), *labels]
    arguments += ["--no-cache"] if options.no_cache else []
    for name in _PASSED_ON:
        if options.environment.get(name):
            arguments += ["--build-arg", name]
    if options.base and context == made.parent:
        arguments += ["--build-arg", f"BASE={options.base}"]
    with output.Progress(f"building {image}") as progress:

        def tell(line: str) -> None:
            if options.verbose:
                progress.line(line)
            elif step := step_of(line):
                progress.part("step", step.text, step.number, step.total)

        code, lines = engine.follow(
            *arguments, str(context), each_line=tell, environment=options.environment
        )
    if code:
        if not options.verbose:
            click.echo("\n".join(lines[-_LAST_LINES:]), err=True)
        raise failure(lines, made.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Step:
    """How far a build is."""

    number: int
    total: int
    text: str


def step_of(line: str) -> Step | None:
    """Return the step that a line of either of the engine's builders begins.

    >>> step_of("Step 2/5 : RUN make")
    Step(number=2, total=5, text='RUN make')
    >>> step_of("#7 [build 3/6] COPY . ."), step_of("#7 DONE 0.1s")
    (Step(number=3, total=6, text='COPY . .'), None)
    """
    found = _STEP.fullmatch(line)
    return Step(int(found[1]), int(found[2]), found[3][:_STEP_CHARS]) if found else None


def failure(lines: list[str], made: str) -> FnError:
    """Return what went wrong in a build, from what the engine wrote and the Dockerfile; pure."""
    text = "\n".join(lines)
    known = engine.meaning(engine.last_line(text))
    if known and "registry" not in known.message:
        return known
    why = engine.last_line(text)
    line = _failed_line(text, made)
    if line:
        written = made.splitlines()[line - 1].strip()
        message = f"the build failed at line {line} of the Dockerfile: {written}"
        return FnError(message, why, Exit.FAILED)
    return FnError(f"the build failed: {why}", "fn build -v shows all of it.", Exit.FAILED)


def _failed_line(text: str, made: str) -> int:
    named = re.search(r"(?:Dockerfile:|parse error (?:on )?line )(\d+)", text)
    if named:
        return int(named[1])
    steps = re.findall(r"^Step (\d+)/\d+ :", text, re.MULTILINE)
    return dockerfile.line_of_step(made, int(steps[-1])) if steps else 0
