"""Does `curl http://HOST/fn | sh` install the client, and does `fn upgrade` renew it?"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import aiohttp
import pytest

from fn.errors import Exit
from tests.e2e.client import Client
from tests.e2e.packed import Ended, Fn, packed
from tests.e2e.platforms import Platform, Service

SH = shutil.which("dash") or "sh"
SYSTEM_PATH = "/usr/bin:/bin"
IS_NEW = "import sys; print(sys.version_info >= (3, 9))"


def is_new(python: str) -> bool | None:
    """Tell whether a Python is one that runs the client; None if it is no Python that runs."""
    done = subprocess.run([python, "-c", IS_NEW], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip() == "True"


#: All Pythons of this machine: each runs the file, or says that it is too old.
PYTHONS = sorted(
    {
        sys.executable,
        *map(str, Path("~/.pyenv/versions").expanduser().glob("3*/bin/python3")),
        *filter(None, (shutil.which(f"python3.{minor}") for minor in range(6, 15))),
    }
)


@pytest.fixture(scope="module")
def giving(platform: Platform) -> Service:
    """An api replica that hands out the client."""
    service = platform.add("api", FN_FILE=str(packed()))
    service.wait_ready()
    return service


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A clean home, and beside it a folder with python3 and curl for the PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python3").symlink_to(sys.executable)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def install(home: Path, script: str, path: str, **env: str) -> Ended:
    """Run the script as `curl ... | sh` does."""
    tools = home.parent / "tools"
    done = subprocess.run(
        [SH],
        input=script.encode(),
        env={"HOME": str(home), "PATH": f"{path}:{tools}:{SYSTEM_PATH}", **env},
        cwd=home,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
async def script(giving: Service, http: aiohttp.ClientSession) -> str:
    """The script as the api makes it for who asks at its own address."""
    return (await Client(http, giving.url).get("/fn")).text


def test_into_ones_own_folder_of_the_path(home: Path, script: str, giving: Service) -> None:
    bin_ = home / ".local" / "bin"
    done = install(home, script, str(bin_))
    assert (done.code, done.err) == (0, ""), done
    lines = done.out.splitlines()
    assert lines[0].endswith(f"is installed: {bin_}/fn")
    assert lines[1].startswith(f"It talks to {giving.url}")
    assert len(lines) == 2
    assert (bin_ / "fn").read_bytes() == packed().read_bytes()
    assert sorted(os.listdir(bin_)) == ["fn"]
    # Nothing else is to be said: it knows its platform.
    fn = Fn(home, file=bin_ / "fn")
    assert fn("version").code == 0


def test_a_second_time_it_asked_for_a_context_that_is_there(home: Path, script: str) -> None:
    bin_ = home / ".local" / "bin"
    install(home, script, str(bin_))
    done = install(home, script, str(bin_))
    assert (done.code, done.err, len(done.out.splitlines())) == (0, "", 1), done


def test_without_a_folder_in_the_path_it_says_how_to_add_it(home: Path, script: str) -> None:
    elsewhere = home / "unwritable"
    elsewhere.write_text("")
    env = {"PATH": f"{home.parent / 'tools'}:/usr/bin:/bin"}
    (home.parent / "tools").chmod(0o555)
    done = install(home, script, str(elsewhere), **env, FN_INSTALL_DIR=str(home / "new" / "bin"))
    assert done.code == 0
    assert f'export PATH="{home}/new/bin:$PATH"' in done.out
    assert (home / "new" / "bin" / "fn").exists()


def test_a_writable_folder_of_the_path_is_found(home: Path, script: str) -> None:
    folder = home.parent / "opt-bin"
    folder.mkdir()
    no_local = script.replace("for folder in /usr/local/bin $PATH", "for folder in $PATH")
    done = install(home, no_local, str(folder))
    assert (done.code, (folder / "fn").exists()) == (0, True), done


def test_a_wrong_checksum_changes_nothing(home: Path, script: str) -> None:
    bin_ = home / ".local" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "fn").write_text("#!/usr/bin/env python3\nold\n")
    checksum = hashlib.sha256(packed().read_bytes()).hexdigest()
    done = install(home, script.replace(checksum, "0" * 64), str(bin_))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("fn is not installed: what was downloaded is not")
    assert (bin_ / "fn").read_text() == "#!/usr/bin/env python3\nold\n"
    assert os.listdir(bin_) == ["fn"]


def test_a_platform_that_does_not_answer_changes_nothing(home: Path, script: str) -> None:
    bin_ = home / ".local" / "bin"
    lost = script.replace("/fn/download", "/fn/nowhere")
    done = install(home, lost, str(bin_))
    assert (done.code, done.out) == (1, "")
    assert "cannot download" in done.err
    assert os.listdir(bin_) == []


def test_a_script_that_breaks_off_does_nothing(home: Path, script: str) -> None:
    half = script[: script.rindex("\nmain")]
    assert install(home, half, str(home / ".local" / "bin")).code == 0
    assert not (home / ".local").exists()


def test_another_program_called_fn_is_kept(home: Path, script: str) -> None:
    bin_ = home / "bin"
    bin_.mkdir()
    (bin_ / "fn").write_bytes(b"\x7fELF\0 the original")
    done = install(home, script, str(bin_))
    assert (done.code, done.err) == (0, "")
    assert (bin_ / "fn.before-millrace").read_bytes() == b"\x7fELF\0 the original"
    assert (bin_ / "fn").read_bytes() == packed().read_bytes()


def test_an_old_python_is_told(home: Path, script: str) -> None:
    bin_ = home / ".local" / "bin"
    bin_.mkdir(parents=True)
    fake = bin_ / "python3"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.6.9\nexit 1\n')
    fake.chmod(0o755)
    done = install(home, script, str(bin_))
    assert (done.code, done.out) == (1, "")
    assert "it needs Python 3.9 or later, and python3 is Python 3.6.9" in done.err


def test_wget_will_do(home: Path, script: str) -> None:
    bin_ = home / ".local" / "bin"
    tools = home.parent / "tools"
    for name in ("wget", "mkdir", "chmod", "mv", "rm", "dd", "tr", "env"):
        found = shutil.which(name)
        assert found, f"the test needs {name}"
        (tools / name).symlink_to(found)
    done = subprocess.run(
        [SH],
        input=script,
        env={"HOME": str(home), "PATH": f"{bin_}:{tools}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (bin_ / "fn").exists()


async def test_behind_a_load_balancer(giving: Service, http: aiohttp.ClientSession) -> None:
    headers = {"Host": "fs.faas.pro", "X-Forwarded-Proto": "https"}
    answer = await Client(http, giving.url).get("/fn", headers=headers)
    assert answer.status == 200
    assert "url='https://fs.faas.pro'\n" in answer.text
    assert "context='fs.faas.pro'\n" in answer.text
    assert answer.headers["Vary"] == "Host, X-Forwarded-Proto"


@pytest.mark.parametrize("host", ["a'; rm -rf ~; '", "$(id)", "a b", "h:port"])
async def test_a_host_cannot_put_commands_into_the_script(
    host: str, giving: Service, http: aiohttp.ClientSession
) -> None:
    answer = await Client(http, giving.url).get("/fn", headers={"Host": host})
    assert answer.status == 400


async def test_the_file_and_its_checksum(giving: Service, http: aiohttp.ClientSession) -> None:
    client = Client(http, giving.url)
    answer = await client.get("/fn/download")
    checksum = hashlib.sha256(answer.body).hexdigest()
    assert answer.body == packed().read_bytes()
    assert answer.headers["ETag"] == f'"{checksum}"'
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert (await client.get("/fn/sha256")).text == f"{checksum}  fn\n"
    again = await client.get("/fn/download", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    head = await client.ask("HEAD", "/fn/download")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(answer.body)))


async def test_an_api_without_the_file_says_so(
    platform: Platform, http: aiohttp.ClientSession, home: Path
) -> None:
    service = platform.add("api", FN_FILE="/nowhere/fn")
    service.wait_ready()
    client = Client(http, service.url)
    for path in ("/fn/download", "/fn/sha256"):
        answer = await client.get(path)
        assert (answer.status, "make fn" in answer.message) == (404, True)
    answer = await client.get("/fn")
    assert answer.status == 404
    done = install(home, answer.text, str(home / ".local" / "bin"))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("fn is not installed: this api was started without")
    refused = Fn(home, {"API_URL": service.url})("upgrade")
    assert refused.code == Exit.REFUSED
    platform.remove(service)


class TestUpgrade:
    @pytest.fixture
    def old(self, home: Path, giving: Service) -> Fn:
        """A client of the same version with other bytes."""
        file = home / "fn"
        shutil.copy(packed(), file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = b"an older one"
        return Fn(home, {"API_URL": giving.url}, file)

    def test_renews_itself_once(self, old: Fn) -> None:
        before = hashlib.sha256(old.file.read_bytes()).hexdigest()[:8]
        after = hashlib.sha256(packed().read_bytes()).hexdigest()[:8]
        own = old.ok("--version").split()[1]
        said = old.ok("upgrade")
        assert said == f"{old.file} upgraded from {own} ({before}) to {own} ({after})\n"
        assert old.file.read_bytes() == packed().read_bytes()
        assert os.access(old.file, os.X_OK)
        assert old.ok("upgrade").endswith("nothing to do\n")

    def test_through_a_link(self, old: Fn) -> None:
        link = old.home / "link"
        link.symlink_to(old.file)
        Fn(old.home, old.env, link).ok("upgrade")
        assert link.is_symlink()
        assert old.file.read_bytes() == packed().read_bytes()

    async def test_goes_back_only_if_told(
        self, old: Fn, platform: Platform, tmp_path: Path
    ) -> None:
        older = tmp_path / "older"
        with zipfile.ZipFile(packed()) as now, zipfile.ZipFile(older, "w") as made:
            for info in now.infolist():
                body = b"0.0.1" if info.filename == "fn/VERSION" else now.read(info)
                made.writestr(info, body)
        service = platform.add("api", FN_FILE=str(older))
        service.wait_ready()
        at = {"API_URL": service.url}
        kept = old("upgrade", **at)
        assert kept.code == Exit.REFUSED
        assert "serves the older 0.0.1" in kept.err
        assert old.ok("upgrade", "--force", **at).endswith(" to 0.0.1\n")
        platform.remove(service)

    def test_what_does_not_run_is_not_taken(
        self, old: Fn, platform: Platform, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken"
        with zipfile.ZipFile(broken, "w") as made:
            made.writestr("fn/VERSION", "9.9.9")
        service = platform.add("api", FN_FILE=str(broken))
        service.wait_ready()
        before = old.file.read_bytes()
        refused = old("upgrade", API_URL=service.url)
        assert refused.code == Exit.USAGE
        assert refused.err.startswith("fn: the new fn does not run here: ")
        assert old.file.read_bytes() == before
        assert os.listdir(old.home) == ["fn"]
        platform.remove(service)


def run(python: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, str(packed()), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("python", [p for p in PYTHONS if is_new(p) is not None])
def test_it_runs_or_says_why_not(python: str, tmp_path: Path) -> None:
    done = run(python, "--version")
    if is_new(python):
        assert (done.returncode, done.stderr) == (0, "")
        assert run(python, "--help").returncode == 0
        assert run(python, "context", "list", "-o", "yaml").returncode == 0
        assert run(python, "token").returncode == Exit.UNAUTHORIZED
        made = subprocess.run(
            [python, str(packed()), "init", "--runtime", "python", "me/greet"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert made.stderr == b""
        assert (tmp_path / "func.yaml").exists()
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("fn: Python 3.9 or later is needed; this is 3.")


def test_the_same_sources_make_the_same_file(tmp_path: Path) -> None:
    root = packed().parents[1]
    command = [sys.executable, str(root / "deploy/packfn.py"), str(root / ".cache/fn-wheels")]
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        subprocess.run([*command, str(file)], check=True)
    assert files[0].read_bytes() == files[1].read_bytes()
