"""Which platform is meant? Environment before context before default; mistakes with their line."""

from pathlib import Path

import pytest

from fn import contexts
from fn.contexts import Context, Saved
from fn.errors import FnError

PROD = Context("https://fn.example.com", "secret", ssl_skip_verify=True, hub="hub.example.com")


def test_without_anything_it_is_the_default() -> None:
    assert contexts.chosen(Saved(), {}) == Context("http://localhost:8080")


def test_the_chosen_context_wins_over_the_default() -> None:
    assert contexts.chosen(Saved("prod", {"prod": PROD}), {}) == PROD


def test_the_environment_wins_over_the_context() -> None:
    environ = {"API_URL": "http://a", "JWT_AUTH_KEY": "k", "SSL_SKIP_VERIFY": "false", "HUB": "h:1"}
    chosen = contexts.chosen(Saved("prod", {"prod": PROD}), environ)
    assert chosen == Context("http://a", "k", ssl_skip_verify=False, hub="h:1")


def test_an_empty_variable_counts_as_absent() -> None:
    assert contexts.chosen(Saved("prod", {"prod": PROD}), {"API_URL": ""}) == PROD


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1", "http://127.0.0.1"),
        ("//fn.example.com", "http://fn.example.com"),
        ("https://fn.example.com/", "https://fn.example.com"),
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/behind/a/prefix/", "http://h:1/behind/a/prefix"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_addresses_may_be_written_in_short(written: str, used: str) -> None:
    assert contexts.url(written, "API_URL") == used


@pytest.mark.parametrize("written", ["http://", "ftp://h", "http://h:port", "a b", ":8080"])
def test_what_is_no_address_is_refused_by_name(written: str) -> None:
    with pytest.raises(FnError, match="API_URL is no address"):
        contexts.chosen(Saved(), {"API_URL": written})


def test_a_switch_that_is_none_is_refused() -> None:
    with pytest.raises(FnError, match="SSL_SKIP_VERIFY must be true or false"):
        contexts.chosen(Saved(), {"SSL_SKIP_VERIFY": "maybe"})


BROKEN = [
    ("contexts: [", 1, "expected"),
    ("contexts:\n  prod:\n    api_ur: http://h\n", 3, "unknown key 'api_ur'; did you mean"),
    ("contexts:\n  prod:\n    api_url: 'http://'\n", 3, "api_url is no address"),
    ("contexts:\n  prod: http://h\n", 2, "context prod must have lines"),
    ("contexts:\n  prod:\n    api_url: http://h\n    jwt_auth_key: 12\n", 4, "put it in quotes"),
    ("contexts:\n  prod:\n    ssl_skip_verify: maybe\n", 3, "must be true or false"),
    ("current: nowhere\n", 1, "no context is called 'nowhere'"),
    ("just text\n", 1, "must have lines"),
    ("a: b: c\n", 1, "mapping"),
    ("current: x\ncurrent: y\n", 2, "duplicate"),
    ("\x07", 1, "special characters"),
]


@pytest.mark.parametrize(("text", "line", "words"), BROKEN)
def test_a_broken_file_is_told_with_its_line(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "contexts.yaml"
    path.write_text(text)
    with pytest.raises(FnError) as caught:
        contexts.load(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert str(path) in caught.value.hint


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "contexts.yaml"
    saved = Saved("prod", {"prod": PROD, "lab": Context("http://lab:8080")})
    contexts.save(path, saved)
    assert contexts.load(path) == saved
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["contexts.yaml"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "contexts:\n"])
def test_an_empty_file_has_no_contexts(text: str, tmp_path: Path) -> None:
    (tmp_path / "contexts.yaml").write_text(text)
    assert contexts.load(tmp_path / "contexts.yaml") == Saved()
