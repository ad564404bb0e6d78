"""Does a new function of each language answer here and on the platform, with nothing to edit?"""

import asyncio
import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from fn import languages
from tests.e2e import images
from tests.e2e.fnclient import Fn
from tests.e2e.outside import host_address
from tests.e2e.platforms import Platform


def beginnings() -> list[tuple[str, str]]:
    known = languages.LANGUAGES.values()
    return [(one.name, f) for one in known for f in one.formats]


@pytest.fixture
def fn(platform: Platform, tmp_path: Path) -> Fn:
    folder = tmp_path / "greet"
    folder.mkdir()
    return Fn(folder, {"API_URL": platform.url, "XDG_CONFIG_HOME": str(tmp_path)})


@pytest.mark.parametrize(("language", "format_"), beginnings())
def test_a_new_function_answers(fn: Fn, app: str, language: str, format_: str) -> None:
    if language == "binary":
        require_compiler()
    name = f"me/{language}-{format_}"
    fn("init", "--runtime", language, "--format", format_, name).good()
    assert fn("test", "--build").good().out.endswith("2 tests passed\n")
    fn("deploy", app, "--skip-push").good()
    path = f"/{language}-{format_}"
    assert fn("call", app, path, stdin=b"Ada").good().out == "Hello, Ada!\n"
    assert fn("test", "--remote", app).good().out.endswith("2 tests passed\n")


def require_compiler() -> None:
    """Skip or fail (see `images.unable`) unless there is a C compiler."""
    found = subprocess.run(["which", "cc"], capture_output=True, check=False)
    if found.returncode:
        images.unable("no C compiler")


def test_python_packages_come_from_wheels_beside_their_list(fn: Fn) -> None:
    fn("init", "--runtime", "python", "me/wheels").good()
    make_wheel(fn.at("wheels").folder)
    fn.write("requirements.txt", "tiny==1.0\n")
    fn.write("func.py", "import tiny\nprint(tiny.WORD)\n")
    fn("build").good()
    assert fn("run").good().out == "from a wheel\n"
    fn.write("func.py", "import tiny\nprint(tiny.WORD, 'again')\n")
    said = fn("build", "-v").good().err
    step = said.partition("pip install")[2].partition("Step ")[0]
    assert "Using cache" in step, "the layer with the packages is built once"
    assert fn("run").good().out == "from a wheel again\n"


def make_wheel(folder: Path) -> None:
    """Write a package of one module."""
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "WORD = 'from a wheel'\n")
        about = "tiny-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
async def npm_registry(_engine: None) -> AsyncIterator[str]:
    """The address of a registry with one package, as a build can reach it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        files = {"package.json": '{"name": "tiny", "version": "1.0.0", "main": "i.js"}'}
        for name, text in {**files, "i.js": "module.exports = 'from npm'"}.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))

    async def about(request: web.Request) -> web.Response:
        dist = {"tarball": f"http://{request.host}/tiny.tgz"}
        version = {"name": "tiny", "version": "1.0.0", "dist": dist}
        tags = {"latest": "1.0.0"}
        told = {"name": "tiny", "dist-tags": tags, "versions": {"1.0.0": version}}
        return web.json_response(told)

    async def tarball(_: web.Request) -> web.Response:
        return web.Response(body=packed.getvalue())

    server = web.Application()
    server.add_routes([web.get("/tiny", about), web.get("/tiny.tgz", tarball)])
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()  # noqa: S104 (builds come from their network)
    yield f"http://{host_address()}:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_packages_of_npm_come_from_the_registry_of_this_machine(
    fn: Fn, npm_registry: str
) -> None:
    fn("init", "--runtime", "node", "me/packages").good()
    fn.write("package.json", json.dumps({"dependencies": {"tiny": "1.0.0"}}))
    fn.write("func.js", "console.log(require('tiny'))\n")
    built = await asyncio.to_thread(fn, "build", NPM_CONFIG_REGISTRY=npm_registry)
    built.good()
    assert fn("run").good().out == "from npm\n"


def test_vendored_go_needs_no_network(fn: Fn) -> None:
    fn("init", "--runtime", "go", "me/vendored").good()
    vendored = fn.at("vendor/example.com/tiny")
    vendored.write("tiny.go", 'package tiny\n\nconst Word = "vendored"\n')
    fn.at("vendor").write(
        "modules.txt", "# example.com/tiny v1.0.0\n## explicit\nexample.com/tiny\n"
    )
    fn.write("go.mod", "module func\n\ngo 1.19\n\nrequire example.com/tiny v1.0.0\n")
    imports = 'import (\n"fmt"\n"example.com/tiny"\n)\n'
    fn.write("func.go", f"package main\n{imports}func main() {{ fmt.Println(tiny.Word) }}\n")
    fn("build", GOFLAGS="-mod=vendor").good()
    assert fn("run").good().out == "vendored\n"


def test_a_base_of_ones_own(fn: Fn) -> None:
    fn("init", "--runtime", "bash", "me/base").good()
    fn.write("func.yaml", fn.read("func.yaml") + "base: millrace/debian:local\n")
    fn("test", "--build").good()
    fn("build", "--base", "millrace/nothing:none").refused(1, "line 1 of the Dockerfile: FROM")
