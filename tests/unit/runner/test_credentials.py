import base64
import json

import pytest

from services.runner import credentials
from services.runner.credentials import Credential

DIGEST = "sha256:" + "0a" * 32


def test_docker_auth_is_a_list() -> None:
    text = '[{"name": "hub.faas.org", "username": "u", "password": "p"}]'
    assert credentials.parse_docker_auth(text) == [Credential("hub.faas.org", "u", "p")]
    assert credentials.parse_docker_auth("") == []


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"name": "x"}]', "secret", "null"])
def test_a_wrong_docker_auth_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="must be a JSON list") as caught:
        credentials.parse_docker_auth(text)
    assert "secret" not in str(caught.value)


def test_a_credential_never_shows_its_password() -> None:
    assert "p4ss" not in repr(Credential("x", "u", "p4ss", "t0ken"))


def test_docker_config() -> None:
    pair = base64.b64encode(b"u:p:w").decode()
    text = json.dumps(
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": pair},
                "r.example.org": {"identitytoken": "t"},
                "helped.example.org": {},
                "odd": {"auth": "%"},
            }
        }
    )
    assert credentials.parse_docker_config(text) == [
        Credential("https://index.docker.io/v1/", "u", "p:w"),
        Credential("r.example.org", "", "", "t"),
    ]
    assert credentials.parse_docker_config("{}") == []
    with pytest.raises(ValueError, match="auths"):
        credentials.parse_docker_config("[]")


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("x", credentials.HUB),
        ("user/x:1", credentials.HUB),
        ("hub.faas.org/x", "hub.faas.org"),
        ("hub.faas.org/user/x", "hub.faas.org"),
        ("registry/user/x", "registry"),
        ("host:5000/x:1", "host:5000"),
        ("localhost/x", "localhost"),
        (f"127.0.0.1:5000/me/greet:0.0.2@{DIGEST}", "127.0.0.1:5000"),
        (f"hub.faas.org/greet@{DIGEST}", "hub.faas.org"),
        (f"me/greet:0.0.2@{DIGEST}", credentials.HUB),
        (f"greet@{DIGEST}", credentials.HUB),
    ],
)
def test_registry_of(image: str, registry: str) -> None:
    assert credentials.registry_of(image) == registry


@pytest.mark.parametrize(
    ("name", "image", "matches"),
    [
        ("https://hub.faas.org", "hub.faas.org/x", True),
        ("hub.faas.org", "hub.faas.org/x", True),
        ("registry.hub.docker.com", "user/x", True),
        ("https://index.docker.io/v1/", "x", True),
        ("docker.io", "docker.io/user/x", True),
        ("hub.faas.org", "user/x", False),
        ("other.org", "hub.faas.org/x", False),
        ("127.0.0.1:5000", f"127.0.0.1:5000/me/greet:0.0.2@{DIGEST}", True),
        ("http://127.0.0.1:5000", f"127.0.0.1:5000/greet@{DIGEST}", True),
        ("127.0.0.1:5000", f"127.0.0.1:5001/me/greet:0.0.2@{DIGEST}", False),
    ],
)
def test_match(name: str, image: str, *, matches: bool) -> None:
    credential = Credential(name, "u", "p")
    assert credentials.match([credential], image) == (credential if matches else None)
