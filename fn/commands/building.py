"""How does a function become an image, here and in the hub? `fn build`, `fn bump`, `fn push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fn import building, engine, funcfile, hubs, imagenames, output, pushing
from fn.commanding import LazyGroup, examples
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fn.funcfile import FuncFile

VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Show all that the engine says.")
NO_CACHE = click.option("--no-cache", is_flag=True, help="Build every step anew.")
BASE = click.option("--base", default="", metavar="IMAGE", help="Stand on this image.")


def load(folder: Path | None = None) -> FuncFile:
    """Return the function of a folder; say what was passed over in its file."""
    file = funcfile.load(folder or Path())
    for warning in file.warnings:
        output.warn(warning)
    return file


def warn_of_unset(file: FuncFile, environment: Mapping[str, str]) -> None:
    """Say which config is left out since a variable of it is not set here."""
    for key in file.unset(environment):
        written = file.fields["config"][key]
        output.warn(f"{file.path.name}: config {key} is left out: {written} is not set here")


@click.command(epilog=examples("fn build", "fn build -v --no-cache", "fn build --base python:3.12"))
@VERBOSE
@NO_CACHE
@BASE
def build(base: str, *, verbose: bool, no_cache: bool) -> None:
    """Build the image of the function in this folder."""
    file = load()
    options = building.Options(hubs.address(file), verbose, no_cache, base)
    image = building.build(file, file.version, options)
    output.show({"image": image}, "", f"Function {image} built successfully.")


@click.command(epilog=examples("fn bump"))
@VERBOSE
def bump(*, verbose: bool) -> None:
    """Raise the patch part of the version in func.yaml, and change nothing else there."""
    file = load()
    version = funcfile.bumped(file.version)
    funcfile.write_version(file, version)
    if verbose:
        output.note(f"{file.path}: {file.version} -> {version}")
    output.show({"version": version}, "", f"Bumped to version {version}")


@click.command(epilog=examples("fn push", "HUB=hub.example.com fn push"))
@VERBOSE
def push(*, verbose: bool) -> None:
    """Push the image of this version to the hub, and the same one as latest."""
    file = load()
    hub = hubs.address(file)
    hubs.require(file, hub)
    image = imagenames.full(file.name, file.version, hub)
    adopt(file, image)
    digest = pushing.push(image, verbose=verbose)
    told = {"image": image, "digest": digest}
    output.show(told, "", f"Function {image} pushed successfully.\ndigest: {digest}")


def adopt(file: FuncFile, image: str) -> None:
    """See to it that an image has its whole name, if it was built when the hub was not known."""
    if engine.has_image(image):
        return
    plain = imagenames.full(file.name, file.version, "")
    if not engine.has_image(plain):
        raise FnError(f"{image} is not built yet", "Build it: fn build", Exit.REFUSED)
    engine.must("tag", plain, image, what=f"cannot name {image}")


def ensure(file: FuncFile) -> str:
    """Return the name of the function's image, building it now if it is not there."""
    hub = hubs.address(file)
    for image in dict.fromkeys(imagenames.full(file.name, file.version, h) for h in (hub, "")):
        if engine.has_image(image):
            return image
    output.note(f"{imagenames.full(file.name, file.version, hub)} is not built yet; building it")
    return building.build(file, file.version, building.Options(hub))


@click.group(cls=LazyGroup, epilog=examples("fn images build"))
def images() -> None:
    """Work on the image of the function in this folder."""


for _command in (build, bump, push):
    images.add_command(_command)
