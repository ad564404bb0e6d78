"""Do the client's commands write what scripts rely on? The packed file, on a real platform."""

import asyncio
import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ruamel.yaml import YAML

from fn.errors import Exit
from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.conftest import JWT_AUTH_KEY
from tests.e2e.packed import Fn
from tests.e2e.platforms import Platform, Service

Image = Callable[[str], str]

ECHO = "cat; echo a line for the log >&2"


@pytest.fixture
def fn(platform: Platform, tmp_path: Path) -> Fn:
    """A shell whose `fn` talks to the shared platform."""
    return Fn(tmp_path, {"API_URL": platform.url})


@pytest.fixture
def echo(fn: Fn, app: str, function_image: Image) -> str:
    """An app whose route /echo answers what it is sent."""
    fn.ok("routes", "create", app, "/echo", function_image(ECHO))
    return app


class TestApps:
    def test_from_making_to_deleting(self, fn: Fn, app: str) -> None:
        assert fn.ok("apps", "create", app) == f"{app} created\n"
        assert app in fn.ok("apps", "list").splitlines()
        assert (
            fn.ok("apps", "update", app, "-c", "A=1", "--config", "B=2") == f"app {app} updated\n"
        )
        assert fn.ok("apps", "inspect", app, "config.A") == '"1"\n'
        assert fn.ok("apps", "update", app, "--config", "-A") == f"app {app} updated\n"
        assert json.loads(fn.ok("apps", "inspect", app)) == {"name": app, "config": {"B": "2"}}
        assert fn.ok("apps", "delete", app) == f"app {app} deleted\n"
        assert app not in fn.ok("apps", "list").splitlines()

    def test_config(self, fn: Fn, app: str) -> None:
        fn.ok("apps", "create", app, "--config", "HOME_IS=$HOME")
        assert fn.ok("apps", "inspect", app, "config.HOME_IS") == f'"{fn.home}"\n'
        assert fn.ok("apps", "config", "set", app, "K", "a b") == f"{app} updated K with a b\n"
        assert fn.ok("apps", "inspect", app, "config.K") == '"a b"\n'
        assert fn.ok("apps", "config", "unset", app, "K") == f"removed key 'K' from app '{app}'\n"
        gone = fn("apps", "inspect", app, "config.K")
        assert (gone.code, gone.out) == (Exit.USAGE, "")

    def test_a_taken_name_is_refused(self, fn: Fn, app: str) -> None:
        fn.ok("apps", "create", app)
        again = fn("apps", "create", app)
        assert (again.code, again.out) == (Exit.REFUSED, "")
        assert again.err.startswith("fn: App already exists\n    ")

    def test_an_app_with_routes_stays(self, fn: Fn, echo: str) -> None:
        refused = fn("apps", "delete", echo)
        assert refused.code == Exit.REFUSED
        assert refused.err.startswith("fn: Cannot remove apps with routes\n")

    def test_no_apps_are_found(self, new_platform: Callable[..., Any], tmp_path: Path) -> None:
        with new_platform() as empty:
            empty.add("api").wait_ready()
            assert Fn(tmp_path, {"API_URL": empty.url}).ok("apps", "list") == "no apps found\n"

    def test_the_short_names_of_old(self, fn: Fn, app: str) -> None:
        assert fn.ok("apps", "c", app) == f"{app} created\n"
        assert app in fn.ok("apps", "l")
        assert json.loads(fn.ok("apps", "i", app))["name"] == app


class TestRoutes:
    def test_from_making_to_deleting(self, fn: Fn, app: str, platform: Platform) -> None:
        made = fn.ok("routes", "create", app, "hello", "me/hello:1")
        assert made == "/hello created with me/hello:1\n"
        listed = fn.ok("routes", "list", app).splitlines()
        assert listed[0].split() == ["path", "image", "endpoint"]
        assert listed[1].split() == ["/hello", "me/hello:1", f"{platform.url}/r/{app}/hello"]
        changed = fn.ok("routes", "update", app, "/hello", "-i", "me/hello:2")
        assert changed == f"{app} /hello updated\n"
        assert fn.ok("routes", "inspect", app, "/hello", "image") == '"me/hello:2"\n'
        assert fn.ok("routes", "delete", app, "/hello") == f"{app} /hello deleted\n"
        assert len(fn.ok("routes", "list", app).splitlines()) == 1

    def test_every_flag_arrives(self, fn: Fn, app: str) -> None:
        flags = {
            "-m": "256",
            "-t": "async",
            "-c": "A=1",
            "--headers": "X-A=1;2",
            "-f": "http",
            "-mc": "3",
            "-j": "key",
            "--timeout": "1m30s",
            "--idle-timeout": "45",
            "--cpus": "0.5",
            "--isolation": "sandbox",
            "--min-sandboxes": "0",
            "--max-attempts": "5",
            "--retries": "2",
            "--retry-delay": "1m",
        }
        words = [word for pair in flags.items() for word in pair]
        fn.ok("routes", "create", app, "/all", "--image", "me/all:1", *words)
        found = json.loads(fn.ok("routes", "inspect", app, "/all"))
        wanted = {
            "path": "/all",
            "image": "me/all:1",
            "memory": 256,
            "type": "async",
            "config": {"A": "1"},
            "headers": {"X-A": ["1", "2"]},
            "format": "http",
            "max_concurrency": 3,
            "jwt_key": "key",
            "timeout": 90,
            "idle_timeout": 45,
            "cpus": 0.5,
            "isolation": "sandbox",
            "min_sandboxes": 0,
            "max_attempts": 5,
            "retries": 2,
            "retry_delay": 60,
            "app_name": app,
        }
        assert {name: found[name] for name in wanted} == wanted

    def test_the_default_image_of_old(self, fn: Fn, app: str) -> None:
        made = fn("routes", "create", app, "/hello")
        assert made.err == "No image specified, using `iron/hello`\n"
        assert made.out == "/hello created with iron/hello\n"

    def test_config(self, fn: Fn, echo: str) -> None:
        said = fn.ok("routes", "config", "set", echo, "/echo", "K", "v")
        assert said == f"{echo} /echo updated K with v\n"
        assert fn.ok("routes", "inspect", echo, "echo", "config.K") == '"v"\n'
        said = fn.ok("routes", "config", "unset", echo, "/echo", "K")
        assert said == f"removed key 'K' from the route '{echo}/echo'\n"
        assert fn.ok("routes", "inspect", echo, "/echo", "config") == "{}\n"

    def test_headers_are_replaced_not_piled_up(self, fn: Fn, echo: str) -> None:
        said = fn.ok("routes", "headers", "set", echo, "/echo", "X-A", "1")
        assert said == f"{echo} /echo updated X-A with 1\n"
        fn.ok("routes", "headers", "set", echo, "/echo", "X-A", "2", "3")
        fn.ok("routes", "update", echo, "/echo", "--headers", "X-B=4")
        headers = json.loads(fn.ok("routes", "inspect", echo, "/echo", "headers"))
        assert headers == {"X-A": ["2", "3"], "X-B": ["4"]}
        said = fn.ok("routes", "headers", "unset", echo, "/echo", "x-a")
        assert said == f"removed header 'x-a' from the route '{echo}/echo'\n"
        assert json.loads(fn.ok("routes", "inspect", echo, "/echo", "headers")) == {"X-B": ["4"]}

    def test_of_an_unknown_app_there_are_none(self, fn: Fn, app: str) -> None:
        unknown = fn("routes", "list", app)
        assert unknown.code == Exit.REFUSED
        assert unknown.err.startswith("fn: App not found\n")


class TestDeadLetters:
    def test_from_dying_to_purging(self, fn: Fn, app: str, function_image: Image) -> None:
        image = function_image('[ "$FATE" = well ] || exit 3; exec cat')
        fn.ok("routes", "create", app, "/x", image, "-t", "async", "--retries", "1")
        one, two, three = sorted(
            fn("call", app, "/x", "-o", "json", stdin=b"in").json()["call_id"] for _ in range(3)
        )
        for call_id in (one, two, three):
            assert fn("calls", "wait", call_id).code == Exit.FAILED
        found = fn("dead-letters", "list", app, "/x", "-o", "json").json()
        assert [letter["call_id"] for letter in found] == [three, two, one]
        assert {(letter["code"], letter["attempt"]) for letter in found} == {("exit", 2)}
        listed = fn.ok("dlq", "list", app)
        assert [call_id in listed for call_id in (one, two, three)] == [True] * 3
        shown = fn("dead-letters", "show", app, one, "-o", "json").json()
        assert shown["request"]["payload"] == "in"

        fn.ok("routes", "update", app, "/x", "-c", "FATE=well")
        said = fn.ok("dead-letters", "redrive", app, one)
        new_id = said.removeprefix(f"{one} redriven as ").strip()
        assert fn.ok("calls", "wait", new_id, "--result") == "in"
        said = fn.ok("dlq", "purge", app, two)
        assert said == "1 dead letter purged\n"
        said = fn.ok("dead-letters", "redrive", app, "--all", "--path", "/x")
        assert said.startswith(f"{three} redriven as ")
        assert fn.ok("dead-letters", "purge", app, "--all") == "0 dead letters purged\n"
        assert fn.ok("dead-letters", "redrive", app, "--all") == "no dead letters found\n"
        redriven = fn("dead-letters", "list", app, "--redriven", "-o", "json").json()
        assert [letter["call_id"] for letter in redriven] == [three, one]

    def test_which_letters_must_be_said(self, fn: Fn, app: str) -> None:
        for words in (
            ("redrive",),
            ("purge",),
            ("redrive", "x", "--all"),
            ("purge", "--path", "/x"),
        ):
            said = fn("dead-letters", words[0], app, *words[1:])
            assert said.code == Exit.USAGE
            assert said.err.startswith("fn: which dead letters?\n")

    def test_a_letter_that_cannot_be_redriven_fails(
        self, fn: Fn, app: str, function_image: Image
    ) -> None:
        fn.ok(
            "routes", "create", app, "/x", function_image("exit 3"), "-t", "async", "--retries", "1"
        )
        call_id = fn("call", app, "/x", "-o", "json", stdin=b"in").json()["call_id"]
        assert fn("calls", "wait", call_id).code == Exit.FAILED
        fn.ok("routes", "delete", app, "/x")
        said = fn("dead-letters", "redrive", app, "--all")
        assert said.code == Exit.FAILED
        assert said.out == f"{call_id} not redriven: Route not found\n"
        assert "1 of 1 dead letters are not redriven" in said.err


class TestCalling:
    def test_standard_input_is_the_body(self, fn: Fn, echo: str) -> None:
        body = bytes(range(256))
        told = json.loads(fn.ok("call", echo, "/echo", "-o", "json", stdin=body))
        assert base64.b64decode(told["body_base64"]) == body
        assert fn.ok("call", echo, "/echo", stdin="é\0\r\n") == "é\0\r\n"

    @pytest.mark.parametrize("form", ["{0} /echo", "{0}/echo", "/r/{0}/echo", "{url}/r/{0}/echo"])
    def test_a_url_will_do(self, form: str, fn: Fn, echo: str, platform: Platform) -> None:
        words = form.format(echo, url=platform.url).split()
        assert fn.ok("call", *words, stdin="hello") == "hello"
        assert fn.ok("routes", "call", *words, "--data", "hi") == "hi"

    def test_an_address_without_scheme_will_do(self, fn: Fn, echo: str, platform: Platform) -> None:
        bare = platform.url.removeprefix("http://")
        assert fn.ok("call", echo, "/echo", "--data", "hi", API_URL=bare) == "hi"

    def test_what_the_function_sees(self, fn: Fn, app: str, function_image: Image) -> None:
        script = "echo $METHOD $HEADER_TRACE $HEADER_X_B $HEADER_CONTENT_TYPE $REQUEST_URL"
        fn.ok("routes", "create", app, "/env", function_image(script))
        said = fn.ok("call", app, "/env?a=1&a=2", "-e", "TRACE", "-e", "X-B=b c", TRACE="7").split()
        assert said[:5] == ["GET", "7", "b", "c", "application/json"]
        assert said[5].endswith(f"/r/{app}/env?a=1&a=2")
        said = fn.ok("call", app, "/env", "--method", "put", "-e", "content-type=text/x").split()
        assert said[:2] == ["PUT", "text/x"]

    def test_a_failure_is_told_and_counts(self, fn: Fn, app: str, function_image: Image) -> None:
        fn.ok("routes", "create", app, "/bad", function_image("echo out; echo why >&2; exit 3"))
        failed = fn("call", app, "/bad")
        assert failed.code == Exit.FAILED
        assert failed.json()["error"]["message"] == "exit code 3"
        lines = failed.err.splitlines()
        assert lines[0] == "fn: exit code 3 (the function's fault)"
        call_id = failed.json()["request_id"]
        assert f"`fn logs {app} {call_id}`" in lines[1]
        assert fn.ok("logs", app, call_id, "--follow") == "why\n"

    def test_a_timeout_says_what_helps(self, fn: Fn, app: str, function_image: Image) -> None:
        image = function_image("sleep 60")
        fn.ok("routes", "create", app, "/slow", image, "--timeout", "1s")
        failed = fn("call", app, "/slow")
        assert failed.code == Exit.FAILED
        assert f"fn routes update {app} /slow --timeout" in failed.err

    def test_a_route_with_a_key(self, fn: Fn, echo: str, guarded_api: Service) -> None:
        fn.ok("routes", "update", echo, "/echo", "--jwt-key", "short")
        assert fn.ok("call", echo, "/echo", stdin="in") == "in"
        token = json.loads(fn.ok("routes", "token", echo, "/echo", "60"))["token"]
        # Who may not manage the platform may not see the key, and can call with a token.
        guarded = {"API_URL": guarded_api.url}
        denied = fn("call", echo, "/echo", **guarded)
        assert denied.code == Exit.UNAUTHORIZED
        assert denied.err.startswith("fn: no token present in request\n")
        header = f"Authorization=Bearer {token}"
        assert fn.ok("call", echo, "/echo", "-e", header, stdin="in", **guarded) == "in"

    def test_as_json(self, fn: Fn, echo: str) -> None:
        told = json.loads(fn.ok("call", echo, "/echo", "-o", "json", stdin="text"))
        assert (told["status"], told["body"]) == (200, "text")
        told = json.loads(fn.ok("-o", "json", "call", echo, "/echo", stdin=b"\xff"))
        assert told["body_base64"] == "/w=="


class TestLookingBack:
    def test_an_async_call(self, fn: Fn, app: str, function_image: Image) -> None:
        fn.ok("routes", "create", app, "/later", function_image(ECHO), "--type", "async")
        call_id = json.loads(fn.ok("call", app, "/later", stdin="result"))["call_id"]
        assert fn.ok("calls", "wait", call_id) == f"{call_id} success\n"
        assert fn.ok("calls", "wait", call_id, "--result", "--timeout", "60s") == "result"
        shown = dict(line.split("\t", 1) for line in fn.ok("calls", "show", call_id).splitlines())
        assert shown["status"].strip() == "success"
        assert fn.ok("logs", app, call_id) == "a line for the log\n"

    def test_waiting_has_an_end(self, fn: Fn, app: str, function_image: Image) -> None:
        fn.ok("routes", "create", app, "/long", function_image("sleep 60"), "-t", "async")
        call_id = json.loads(fn.ok("call", app, "/long"))["call_id"]
        late = fn("calls", "wait", call_id, "--timeout", "1s")
        assert late.code == Exit.FAILED
        assert re.match(rf"fn: call {call_id} is still \w+ after 1 s\n", late.err)

    async def test_lists(self, fn: Fn, echo: str, client: Client) -> None:
        ids = [(await client.post(f"/r/{echo}/echo", data=b"x")).call_id for _ in range(3)]
        for call_id in ids:
            await client.ended(call_id)
        lines = fn.ok("calls", "list", echo).splitlines()
        assert [line.split("\t")[0] for line in lines[1:]] == ids[::-1]
        assert lines[1].split()[1:3] == ["/echo", "success"]
        few = json.loads(fn.ok("calls", "list", echo, "/echo", "-n", "2", "-o", "json"))
        assert [call["id"] for call in few] == ids[:0:-1]
        none = fn.ok("calls", "list", echo, "--status", "error", "--since", "1h")
        assert none == "no calls found\n"
        logged = fn.ok("logs", echo, "/echo").splitlines()
        assert logged == [f"/echo {call_id} | a line for the log" for call_id in ids]

    async def test_logs_follow(self, fn: Fn, echo: str, client: Client) -> None:
        first = (await client.post(f"/r/{echo}/echo")).call_id
        await client.ended(first)
        written = fn.home / "followed"
        process = fn.start(written, "logs", echo, "-f")

        async def shows(call_id: str) -> bool:
            return f"/echo {call_id} | a line for the log\n" in written.read_text()

        try:
            await eventually(lambda: shows(first), 60)
            second = (await client.post(f"/r/{echo}/echo")).call_id
            await eventually(lambda: shows(second), 60)
        finally:
            process.terminate()
            process.wait()
        assert written.read_text().count(first) == 1

    def test_an_unknown_call(self, fn: Fn) -> None:
        unknown = fn("calls", "show", "01938f6e-0000-7000-8000-000000000000")
        assert unknown.code == Exit.REFUSED
        assert unknown.err.startswith("fn: Call not found\n")


class TestThePlatform:
    def test_versions(self, fn: Fn) -> None:
        own = fn.ok("--version").removeprefix("fn ").strip()
        assert fn.ok("version") == f"Client version: {own}\nServer version {own}\n"
        assert json.loads(fn.ok("version", "-o", "json")) == {"client": own, "server": own}

    async def test_runners(self, fn: Fn, http: aiohttp.ClientSession, platform: Platform) -> None:
        client = Client(http, platform.url)

        async def listed() -> Any:
            return (await client.get("/v1/runners")).json()["runners"]

        await eventually(listed, 30)
        lines = fn.ok("runners").splitlines()
        assert lines[0].split()[:4] == ["id", "name", "state", "calls"]
        assert "ready" in lines[1]

    async def test_a_runner_is_drained_and_undrained(
        self, fn: Fn, http: aiohttp.ClientSession, platform: Platform
    ) -> None:
        client = Client(http, platform.url)
        [runner] = (await client.get("/v1/runners")).json()["runners"]
        try:
            done = fn("runners", "drain", runner["name"], "--wait", "--timeout", "1m")
            assert (done.code, done.out) == (0, f"{runner['name']} is empty\n")
            assert "draining" in fn.ok("runners")
            told = fn("runners", "-o", "json").json()
            assert [(r["draining"], r["running"], r["sandboxes"]) for r in told] == [(True, 0, [])]
        finally:
            assert fn.ok("runners", "undrain", runner["id"]) == f"{runner['id']} takes calls\n"

        async def is_ready() -> bool:
            return "ready" in await asyncio.to_thread(fn.ok, "runners")

        await eventually(is_ready, 30)
        unknown = fn("runners", "drain", runner["name"] + "x")
        assert unknown.code == Exit.REFUSED
        assert f"did you mean {runner['name']}" in unknown.err

    def test_doctor(self, fn: Fn) -> None:
        found = {f["what"]: f["state"] for f in fn("doctor", "-o", "json").json()}
        expected = dict.fromkeys(["python", "engine", "api", "token", "runners"], "ok")
        assert {what: found[what] for what in expected} == expected
        away = fn("doctor", API_URL="http://127.0.0.1:9")
        assert away.code == Exit.UNREACHABLE

    def test_tokens_of_management(self, fn: Fn, guarded_api: Service) -> None:
        guarded = {"API_URL": guarded_api.url}
        assert fn("apps", "list", **guarded).code == Exit.UNAUTHORIZED
        assert fn("apps", "list", JWT_AUTH_KEY="wrong", **guarded).code == Exit.UNAUTHORIZED
        fn.ok("apps", "list", JWT_AUTH_KEY=JWT_AUTH_KEY, **guarded)
        assert fn("token").code == Exit.UNAUTHORIZED
        assert fn.ok("token", JWT_AUTH_KEY=JWT_AUTH_KEY).count(".") == 2

    def test_contexts(self, fn: Fn, platform: Platform, guarded_api: Service, app: str) -> None:
        shell = Fn(fn.home)
        assert shell.ok("context", "add", "plain", platform.url) == "context plain added\n"
        words = ("--api-url", guarded_api.url, "--jwt-auth-key", JWT_AUTH_KEY, "--use")
        added = shell.ok("context", "add", "guarded", *words)
        assert added == "context guarded added, and in use\n"
        assert shell.ok("apps", "create", app) == f"{app} created\n"
        used = shell.ok("context", "use", "plain")
        assert used == f"context plain in use: {platform.url}\n"
        rows = [line.split() for line in shell.ok("context", "list").splitlines()]
        assert rows[0] == ["current", "name", "api_url", "key", "hub"]
        assert ["*", "plain", platform.url, "no", "-"] in rows
        assert JWT_AUTH_KEY not in shell.ok("context", "list", "-o", "json")
        assert shell("context", "add", "plain", "http://h").code == Exit.REFUSED
        assert shell.ok("context", "remove", "plain") == "context plain removed\n"
        assert shell("context", "use", "plain").code == Exit.REFUSED

    @pytest.mark.parametrize("command", ["apps list", "runners", "version", "context list"])
    def test_any_answer_is_json_or_yaml(self, command: str, fn: Fn) -> None:
        words = command.split()
        as_json = fn("-o", "json", *words).json()
        assert type(as_json) is type(YAML(typ="safe").load(fn(*words, "-o", "yaml").out))
        assert fn(*words, "-o", "table").code == 0

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion(self, shell: str, fn: Fn, app: str) -> None:
        assert "_FN_COMPLETE" in fn.ok("completion", shell)
        fn.ok("apps", "create", app)
        typed = f"fn apps delete {app[:-2]}"
        asked = {"_FN_COMPLETE": f"{shell}_complete", "COMP_WORDS": typed}
        cword = app[:-2] if shell == "fish" else "3"
        assert app in fn.ok(COMP_CWORD=cword, **asked)

    def test_a_reader_who_leaves_is_no_failure_to_tell(self, fn: Fn) -> None:
        script = f'{fn.file} --help | true; echo "${{PIPESTATUS[0]}}"'
        done = subprocess.run(
            ["bash", "-c", script], env=fn.environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() in {"0", "141"}
        assert done.stderr == ""
