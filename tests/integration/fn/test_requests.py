"""What do commands ask of the platform? Where a real one would not show it, or not yet."""

import base64
from pathlib import Path

import pytest

from tests.integration.fn.conftest import FakePlatform, Run

ROUTE = {"app_name": "demo", "path": "/p", "image": "i:2", "jwt_key": ""}


def test_a_rollback_goes_to_the_image_before(run: Run, fake: FakePlatform) -> None:
    fake.answer(
        "GET /v1/apps/demo/routes/p", {"route": {**ROUTE, "previous_images": ["i:1", "i:0"]}}
    )
    fake.answer("PATCH /v1/apps/demo/routes/p", {"route": {**ROUTE, "image": "i:1"}})
    ended = run("routes", "rollback", "demo", "p")
    assert (ended.code, ended.out) == (0, "demo /p rolled back to i:1\nwas i:2\n")
    assert fake.asked[-1].json() == {"route": {"image": "i:1"}}


def test_warnings_of_the_api_are_passed_on(run: Run, fake: FakePlatform) -> None:
    app = {"name": "demo", "config": None}
    fake.answer("POST /v1/apps", {"app": app, "warnings": ["app.x ignored"]})
    ended = run("apps", "create", "demo")
    assert (ended.code, ended.out, ended.err) == (0, "demo created\n", "fn: app.x ignored\n")


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("apps", "inspect", "a/b c"), "/v1/apps/a%2Fb%20c"),
        (("routes", "inspect", "demo", "é/x y"), "/v1/apps/demo/routes/%C3%A9/x%20y"),
        (("calls", "show", "../apps"), "/v1/calls/..%2Fapps"),
    ],
)
def test_names_stay_names_in_a_url(
    arguments: tuple[str, ...], path: str, run: Run, fake: FakePlatform
) -> None:
    run(*arguments)
    assert fake.asked[0].path == path


def test_an_address_may_have_a_prefix(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /behind/v1/apps", {"apps": []})
    assert run("apps", "list", API_URL=f"{fake.url}/behind/v1/").out == "no apps found\n"


def test_the_token_stays_with_the_platform(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("GET /r/demo/p", b"answer")
    assert run("call", "demo", "/p", JWT_AUTH_KEY="secret").out == "answer"
    assert ["Authorization" in asked.headers for asked in fake.asked] == [True, False]


def test_a_host_without_a_scheme_was_passed_over(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("GET /r/demo/p", b"answer")
    host = fake.url.removeprefix("http://")
    assert run("call", f"{host}/r/demo/p", API_URL="http://127.0.0.1:1").out == "answer"


def test_a_path_with_r_in_it_was_another_app(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/r/p", {"route": ROUTE})
    fake.answer("GET /r/demo/r/p", b"answer")
    assert run("call", "demo/r/p").out == "answer"
    assert run("call", "/r/demo/r/p").out == "answer"


def test_a_token_of_one_platform_was_shown_to_another(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("GET /r/demo/p", b"answer")
    elsewhere = {"API_URL": "http://127.0.0.1:1", "JWT_AUTH_KEY": "secret"}
    assert run("call", f"{fake.url}/r/demo/p", **elsewhere).out == "answer"
    assert not any("Authorization" in asked.headers for asked in fake.asked)
    assert run("call", f"{fake.url}/r/demo/p", JWT_AUTH_KEY="secret").out == "answer"
    assert any("Authorization" in asked.headers for asked in fake.asked)


def test_a_call_says_when_the_platform_is_full(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    error = {"message": "No runner had room", "code": "capacity", "fault": "platform"}
    fake.answer("GET /r/demo/p", {"request_id": "1", "error": error}, 503)
    ended = run("call", "demo", "/p")
    assert (ended.code, ended.complaint) == (5, "No runner had room (the platform's fault)")
    assert "fn runners" in ended.hint


def test_a_function_may_answer_with_an_error_of_its_own(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("GET /r/demo/p", b"no such page", 404)
    ended = run("call", "demo", "/p")
    assert (ended.code, ended.out) == (1, "no such page")
    assert ended.complaint == "the function answered with status 404"


def test_a_call_may_have_a_key_and_a_callback(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("POST /r/demo/p", {"call_id": "1"}, 202)
    url = "https://shop.example/done"
    ended = run("call", "demo", "/p", "-d", "x", "--idempotency-key", "k 1", "--callback", url)
    assert ended.code == 0
    sent = fake.asked[-1].headers
    assert (sent["Idempotency-Key"], sent["X-Callback-Url"]) == ("k 1", url)
    run("call", "demo", "/p", "-d", "x")
    assert not {"Idempotency-Key", "X-Callback-Url"} & {*fake.asked[-1].headers}


def test_what_signs_callbacks_is_shown_and_changed(run: Run, fake: FakePlatform) -> None:
    told = {"secret": "mcs_2", "previous": "mcs_1", "previous_until": "2026-01-31T12:00:00Z"}
    for method in ("GET", "POST"):
        fake.answer(f"{method} /v1/apps/demo/callback-secret", {"callback_secret": told})
    assert run("apps", "callback-secret", "demo").out == "mcs_2\n"
    assert fake.asked[-1].method == "GET"
    assert run("apps", "callback-secret", "demo", "--rotate").out == "mcs_2\n"
    assert fake.asked[-1].method == "POST"


def test_a_link_is_without_effect(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("GET /r/demo/p", b"answer")
    ended = run("call", "demo", "/p", "--link", "db")
    assert (ended.code, ended.out) == (0, "answer")
    assert ended.err.startswith("fn: --link is without effect")


def test_func_yaml_of_the_folder_is_merged(
    run: Run, fake: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "func.yaml").write_text(
        "name: me/greet\nversion: 0.0.3\nmemory: 64\ntimeout: 1m\nconfig: {A: '1', B: '2'}\n"
    )
    monkeypatch.chdir(tmp_path)
    fake.answer(
        "POST /v1/apps/demo/routes", {"route": {**ROUTE, "image": "hub:5000/me/greet:0.0.3"}}
    )
    ended = run("routes", "create", "demo", "/p", "-m", "32", "-c", "B=3", HUB="hub:5000")
    assert (ended.code, ended.err) == (0, "merged with func.yaml\n")
    assert ended.out == "/p created with hub:5000/me/greet:0.0.3\n"
    sent = fake.asked[-1].json()["route"]
    assert sent == {
        "path": "/p",
        "image": "hub:5000/me/greet:0.0.3",
        "memory": 32,
        "timeout": 60,
        "config": {"A": "1", "B": "3"},
        "headers": {},
    }


def test_limits_of_an_app(run: Run, fake: FakePlatform) -> None:
    app = {"name": "demo", "config": None}
    fake.answer("POST /v1/apps", {"app": app})
    fake.answer("PATCH /v1/apps/demo", {"app": app})
    assert run("apps", "create", "demo", "--max-inflight", "5", "--rate", "0.5").code == 0
    assert fake.asked[-1].json() == {"app": {"name": "demo", "max_inflight": 5, "rate": 0.5}}
    assert run("apps", "update", "demo", "--rate", "0", "--burst", "0").out == "app demo updated\n"
    assert fake.asked[-1].json() == {"app": {"config": {}, "rate": 0, "burst": 0}}


def test_a_header_in_other_letters_was_a_defect(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET /v1/apps/demo/routes/p", {"route": ROUTE})
    fake.answer("GET /r/demo/p", b"answer")
    assert run("call", "demo", "/p", "-e", "City=北京").code == 0
    assert fake.asked[-1].headers["City"].encode("latin-1").decode() == "北京"


def test_a_proxy_was_not_told_its_password(run: Run, fake: FakePlatform) -> None:
    fake.answer("GET http://fn.example.com/v1/apps", {"apps": []})
    proxy = {"http_proxy": fake.url.replace("//", "//ann:p%40ss@"), "no_proxy": ""}
    assert run("apps", "list", API_URL="http://fn.example.com", **proxy).out == "no apps found\n"
    told = fake.asked[-1].headers["proxy-authorization"].removeprefix("Basic ")
    assert base64.b64decode(told) == b"ann:p@ss"


def test_config_that_is_left_out_of_a_route_was_not_told(
    run: Run, fake: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "func.yaml").write_text("name: h:5000/greet\nconfig: {DB: $SURELY_NOT_SET}\n")
    monkeypatch.chdir(tmp_path)
    fake.answer("POST /v1/apps/demo/routes", {"route": {**ROUTE, "image": "i"}})
    ended = run("routes", "create", "demo", "/p")
    assert ended.err.splitlines()[1:] == [
        "fn: func.yaml: config DB is left out: $SURELY_NOT_SET is not set here"
    ]
