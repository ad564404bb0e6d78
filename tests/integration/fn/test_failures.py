"""What if it goes wrong? One line that says so, one that helps, and an exit code of its own."""

import socket
import time
from pathlib import Path

import jwt
import pytest

from fn.commands import doctor
from fn.errors import Exit
from tests.integration.fn.conftest import FakePlatform, Run


def test_nobody_listens(run: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        ended = run("apps", "list", API_URL=f"http://127.0.0.1:{port}")
    assert ended.code == Exit.UNREACHABLE
    assert ended.complaint == (
        f"the API at http://127.0.0.1:{port} cannot be reached: connection refused"
    )
    assert "API_URL" in ended.hint


def test_the_host_has_no_address(run: Run) -> None:
    ended = run("apps", "list", API_URL="http://no-such-host.invalid")
    assert ended.code == Exit.UNREACHABLE
    assert "no such host" in ended.complaint


def test_the_api_url_is_none(run: Run) -> None:
    ended = run("apps", "list", API_URL="http://")
    assert ended.code == Exit.USAGE
    assert ended.complaint.startswith("API_URL is no address of an API")


def test_it_is_no_api(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps", b"<html>hello</html>", Content_Type="text/html")
    ended = run("apps", "list")
    assert ended.code == Exit.UNREACHABLE
    assert ended.complaint == (
        f"{fake.url} is no API of Millrace: it answers 200 with '<html>hello</html>'"
    )


def test_it_knows_no_such_page(run: Run) -> None:
    ended = run("apps", "list")
    assert ended.code == Exit.UNREACHABLE
    assert "no API of Millrace: it answers 404" in ended.complaint


def test_it_redirects_to_another_address(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps", b"", 308, Location="https://fn.example.com/v1/apps")
    ended = run("apps", "list")
    assert ended.code == Exit.UNREACHABLE
    assert ended.hint == "Set API_URL=https://fn.example.com"


def test_a_token_is_missing(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps", {"error": "Invalid API Authorization token."}, 401)
    ended = run("apps", "list")
    assert (ended.code, ended.complaint) == (Exit.UNAUTHORIZED, "Invalid API Authorization token.")
    assert "set JWT_AUTH_KEY" in ended.hint


def test_a_token_is_of_another_key(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps", {"error": "Invalid API Authorization token."}, 401)
    ended = run("apps", "list", JWT_AUTH_KEY="another")
    assert ended.code == Exit.UNAUTHORIZED
    assert ended.hint.startswith("The token was signed with another key")


def test_a_token_has_expired_because_the_clock_is_late(run: Run, fake: FakePlatform) -> None:
    refusal = {"error": "Invalid API Authorization token."}
    fake.answer("GET /v1/apps", refusal, 401, Date="Fri, 01 Jan 2100 00:00:00 GMT")
    ended = run("apps", "list", JWT_AUTH_KEY="key")
    assert ended.code == Exit.UNAUTHORIZED
    assert "behind the platform's, so that tokens are expired" in ended.hint


def test_the_token_is_good_for_an_hour(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps", {"apps": []})
    assert run("apps", "list", JWT_AUTH_KEY="-----BEGIN odd key").out == "no apps found\n"
    token = fake.asked[0].headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    now = time.time()
    assert now + 3500 < claims["exp"] < now + 3700
    assert claims["iat"] <= now - 30


def test_an_app_is_unknown(run: Run, fake: FakePlatform) -> None:
    fake.refuse("GET /v1/apps/dmeo", 404, "App not found")
    fake.answer("GET /v1/apps", {"apps": [{"name": "demo", "config": None}]})
    ended = run("apps", "inspect", "dmeo")
    assert (ended.code, ended.complaint) == (Exit.REFUSED, "App not found")
    assert ended.hint == "Did you mean 'demo'? `fn apps list` shows all"


def test_a_route_is_unknown(run: Run, fake: FakePlatform) -> None:
    fake.refuse("GET /v1/apps/demo/routes/gret", 404, "Route not found")
    fake.answer("GET /v1/apps/demo/routes", {"routes": [{"path": "/greet"}]})
    ended = run("call", "demo", "/gret")
    assert (ended.code, ended.complaint) == (Exit.REFUSED, "Route not found")
    assert ended.hint == "Did you mean '/greet'? `fn routes list demo` shows all"


@pytest.mark.parametrize(
    ("arguments", "request_line", "message"),
    [
        (("apps", "create", "demo"), "POST /v1/apps", "App already exists"),
        (("routes", "create", "a", "/b", "i"), "POST /v1/apps/a/routes", "Route already exists"),
    ],
)
def test_a_name_is_taken(
    arguments: tuple[str, ...], request_line: str, message: str, run: Run, fake: FakePlatform
) -> None:
    fake.refuse(request_line, 409, message)
    ended = run(*arguments)
    assert (ended.code, ended.complaint) == (Exit.REFUSED, message)
    assert "update" in ended.hint


def test_the_platform_has_a_defect(run: Run, fake: FakePlatform) -> None:
    fake.refuse("GET /v1/apps", 500, "Something unexpected happened on the server")
    assert run("apps", "list").code == Exit.UNREACHABLE


def test_several_mistakes_are_one_line(run: Run, fake: FakePlatform) -> None:
    fake.refuse(
        "POST /v1/apps/a/routes",
        400,
        "validation failure list:\nvalidation failure list:\nPath malformed\nNegative timeout",
    )
    assert run("routes", "create", "a", "/b", "i").complaint == "Path malformed; Negative timeout"


def test_a_certificate_is_not_trusted(run: Run, tls_fake: FakePlatform) -> None:
    ended = run("apps", "list", API_URL=tls_fake.url)
    assert ended.code == Exit.UNREACHABLE
    assert ended.complaint.startswith(f"the certificate of {tls_fake.url} is not trusted: self")
    assert "SSL_SKIP_VERIFY=true" in ended.hint


def test_a_certificate_may_be_trusted_unseen(run: Run, tls_fake: FakePlatform) -> None:
    tls_fake.answer("GET /v1/apps", {"apps": []})
    ended = run("apps", "list", API_URL=tls_fake.url, SSL_SKIP_VERIFY="true")
    assert (ended.code, ended.out, ended.err) == (0, "no apps found\n", "")


def test_a_certificate_may_be_trusted_by_name(
    run: Run, tls_fake: FakePlatform, certificate: Path
) -> None:
    tls_fake.answer("GET /v1/apps", {"apps": []})
    ended = run("apps", "list", API_URL=tls_fake.url, SSL_CERT_FILE=str(certificate))
    assert (ended.code, ended.out) == (0, "no apps found\n")


def test_it_speaks_no_tls(run: Run, fake: FakePlatform) -> None:
    ended = run("apps", "list", API_URL=fake.url.replace("http:", "https:"))
    assert ended.code == Exit.UNREACHABLE
    assert "speaks no TLS" in ended.complaint
    assert ended.hint == f"Set API_URL={fake.url}"


def test_the_context_file_is_broken(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "config" / "millrace" / "contexts.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("contexts:\n  prod: {api_url: [}\n")
    ended = run("apps", "list")
    assert ended.code == Exit.USAGE
    assert ended.complaint.startswith(f"{file}:2: ")


def test_the_context_file_is_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config" / "millrace" / "contexts.yaml").mkdir(parents=True)
    assert "Is a directory" in run("context", "list").complaint


def test_a_context_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file where a folder should be")
    ended = run("context", "add", "prod", "http://h")
    assert ended.code == Exit.USAGE
    assert "Not a directory" in ended.complaint


def test_a_command_is_misspelt(run: Run) -> None:
    ended = run("rotues", "list", "demo")
    assert ended.code == Exit.USAGE
    assert ended.complaint == "No such command 'rotues'. Did you mean 'routes'?"


def test_a_command_of_a_group_is_misspelt(run: Run) -> None:
    assert run("routes", "craete").complaint.endswith("Did you mean 'create'?")


def test_an_option_is_misspelt(run: Run) -> None:
    ended = run("routes", "create", "demo", "/p", "--memmory", "5")
    assert ended.code == Exit.USAGE
    assert ended.complaint == "No such option: --memmory Did you mean '--memory'?"


def test_an_argument_is_missing(run: Run) -> None:
    ended = run("routes", "list")
    assert (ended.code, ended.complaint) == (Exit.USAGE, "Missing argument 'APP'.")
    assert ended.hint == "Usage: fn routes list [OPTIONS] APP (--help shows examples)"


def test_apps_have_no_headers(run: Run, fake: FakePlatform) -> None:
    ended = run("apps", "update", "demo", "--headers", "X=1")
    assert ended.code == Exit.USAGE
    assert ended.complaint == "apps have no headers; their routes have"
    assert "fn routes headers set demo /PATH NAME VALUE" in ended.hint
    assert not fake.asked


@pytest.mark.parametrize("written", ["5x", "soon", "1.5s", "", "-3s"])
def test_a_duration_is_none(written: str, run: Run) -> None:
    ended = run("routes", "update", "demo", "/p", "--timeout", f"{written}s?")
    assert (ended.code, ended.complaint[:9]) == (Exit.USAGE, "--timeout")


def test_config_is_no_pair(run: Run) -> None:
    assert "'LEVEL' is no KEY=VALUE" in run("apps", "create", "demo", "--config", "LEVEL").complaint


def test_config_names_a_variable_that_is_not_set(run: Run) -> None:
    ended = run("apps", "create", "demo", "--config", "A=${SURELY_NOT_SET}")
    assert ended.complaint == "A: the variable SURELY_NOT_SET is not set here"


def test_nothing_is_to_be_changed(run: Run) -> None:
    assert run("routes", "update", "demo", "/p").complaint == "nothing to change"


def test_a_route_has_no_key(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": {"jwt_key": ""}})
    ended = run("routes", "token", "demo", "/p")
    assert (ended.code, ended.complaint) == (Exit.REFUSED, "Empty JWT Key")


def test_there_is_nothing_to_go_back_to(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": {"image": "i:2", "previous_images": []}})
    ended = run("routes", "rollback", "demo", "/p")
    assert (ended.code, ended.complaint) == (Exit.REFUSED, "demo /p has had no image before i:2")


def test_a_defect_of_fn_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect() -> None:
        raise KeyError("image\nand more")

    monkeypatch.setattr("fn.contexts.current", defect)
    ended = run("apps", "list")
    assert ended.code == Exit.DEFECT
    assert ended.complaint.startswith("a defect in fn itself: KeyError: ")
    assert "FN_DEBUG=1" in ended.hint


def test_fn_debug_shows_where_a_defect_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fn.contexts.current", lambda: 1 / 0)
    with pytest.raises(AssertionError, match="Traceback"):
        run("apps", "list", FN_DEBUG="1")
    assert capfd.readouterr().err == ""


def test_fn_from_its_source_does_not_upgrade(run: Run) -> None:
    assert "runs from its source" in run("upgrade").complaint


def test_a_choice_that_is_none_was_not_guessed(run: Run) -> None:
    ended = run("routes", "create", "demo", "/p", "--type", "asinc")
    assert ended.code == Exit.USAGE
    assert ended.complaint.endswith("is not one of 'sync', 'async'. Did you mean 'async'?")


@pytest.mark.parametrize(
    ("option", "words"), [("--memory", "'x' is no whole number."), ("--cpus", "'x' is no number.")]
)
def test_a_number_was_a_valid_integer_range(option: str, words: str, run: Run) -> None:
    assert run("routes", "create", "demo", "/p", option, "x").complaint.endswith(words)


def test_an_unknown_runtime_had_no_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "func.yaml").write_text("name: a\nruntime: pyhton\n")
    monkeypatch.chdir(tmp_path)
    ended = run("build")
    assert (ended.code, ended.complaint) == (
        Exit.USAGE,
        "func.yaml:2: there is no runtime `pyhton`; did you mean `python`?",
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-e", "A=x\ny"), "the value of A has several lines, and a header has one"),
        (("-e", "A B=x"), "'A B' is no name of a header"),
        (("-e", "=x"), "'' is no name of a header"),
        (("--method", "GET IT"), "'GET IT' is no method of HTTP"),
    ],
)
def test_a_call_that_http_cannot_carry_was_a_defect(
    arguments: tuple[str, ...], complaint: str, run: Run, fake: FakePlatform
) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": {"jwt_key": ""}})
    ended = run("call", "demo", "/p", *arguments)
    assert (ended.code, ended.complaint) == (Exit.USAGE, complaint)
    assert ended.hint


def test_a_proxy_of_another_kind_was_a_defect(run: Run) -> None:
    proxy = {"http_proxy": "socks5://127.0.0.1:1", "no_proxy": ""}
    ended = run("apps", "list", API_URL="http://fn.example.com", **proxy)
    assert (ended.code, ended.complaint[:35]) == (Exit.USAGE, "HTTP_PROXY is no proxy that can be ")
    assert "HTTP_PROXY=http://HOST:PORT" in ended.hint


def test_an_api_of_another_kind_was_a_defect(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps", {"status": "fine"})
    ended = run("apps", "list")
    assert (ended.code, ended.complaint) == (
        Exit.UNREACHABLE,
        f'{fake.url} is no API of Millrace: it answers 200 with \'{{"status": "fine"}}\'',
    )


def test_a_question_without_an_answer_ended_without_a_word(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("click.termui.hidden_prompt_func", no_more)
    ended = run("context", "add", "prod", "http://h", "--jwt-auth-key")
    assert ended.code == Exit.USAGE
    assert ended.err.splitlines()[-2].endswith("the input ended before the answer to a question")


def test_a_hub_of_an_unknown_authority_was_said_to_answer_by_400(
    tls_fake: FakePlatform, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_ENGINES_CERTIFICATES", tmp_path)
    tls_fake.answer("GET /v2/", {})
    hub = tls_fake.url.removeprefix("https://")
    assert "is not trusted: self" in doctor.hub_trouble(hub)
    (tmp_path / hub).mkdir()
    (tmp_path / hub / "ca.crt").write_bytes(certificate.read_bytes())
    assert doctor.hub_trouble(hub) == ""


def test_a_letter_that_is_refused_hid_what_became_of_the_others(
    run: Run, fake: FakePlatform
) -> None:
    letters = "/v1/apps/demo/dead-letters"
    fake.answer(f"POST {letters}/A/redrive", {"redrive_of": "A", "call_id": "C"})
    fake.refuse(f"POST {letters}/B/redrive", 404, "Dead letter not found")
    ended = run("dlq", "redrive", "demo", "A", "B")
    assert (ended.code, ended.out) == (
        Exit.FAILED,
        "A redriven as C\nB not redriven: Dead letter not found\n",
    )
    assert run("dlq", "redrive", "demo", "B").complaint == "Dead letter not found"


@pytest.mark.parametrize("arguments", [("http://[::1/r/demo/p",), ("demo", "http://[")])
def test_an_address_that_breaks_off_was_a_defect(arguments: tuple[str, ...], run: Run) -> None:
    ended = run("call", *arguments)
    assert ended.code == Exit.USAGE
    assert ended.complaint == f"{arguments[-1]} is no address of a function"
