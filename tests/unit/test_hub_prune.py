"""What is taken out of the hub, and what must stay?"""

import doctest
import json
from pathlib import Path

import pytest

from deploy.hub import prune

ROOT = Path("docker/registry/v2")


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def image(name: str, number: int) -> str:
    return f"127.0.0.1:5000/{name}:1@{digest(number)}"


class Storage:
    """A registry's folder, as the registry would have written it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def push(self, repository: str, number: int, tag: str, *, parts: tuple[int, ...] = ()) -> None:
        """Keep a manifest, and let a tag name it if there is one."""
        name = digest(number).partition(":")[2]
        manifests = self.folder / ROOT / "repositories" / repository / "_manifests"
        body = {"manifests": [{"digest": digest(part)} for part in parts]} if parts else {}
        blob = self.folder / ROOT / "blobs" / "sha256" / name[:2] / name / "data"
        _write(blob, json.dumps(body))
        _write(manifests / "revisions" / "sha256" / name / "link", digest(number))
        if tag:
            _write(manifests / "tags" / tag / "current" / "link", digest(number))
            _write(manifests / "tags" / tag / "index" / "sha256" / name / "link", digest(number))

    def left(self, repository: str) -> set[int]:
        """Return the manifests that the registry still knows."""
        folder = self.folder / ROOT / "repositories" / repository / "_manifests"
        return {int(link.parent.name, 16) for link in folder.glob("revisions/sha256/*/link")}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(prune).attempted > 0


def test_routes_need_what_they_run_and_what_they_may_go_back_to() -> None:
    routes = [
        {"image": image("a", 1), "previous_images": [image("a", 2), "a:latest"]},
        {"image": "a:latest", "previous_images": []},
    ]
    assert prune.named_by_routes({"routes": routes}) == {digest(1), digest(2)}


@pytest.mark.parametrize("answer", [{}, {"error": {}}, {"routes": [{"image": "x"}]}, {"routes": 1}])
def test_an_answer_without_all_routes_is_none(answer: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        prune.named_by_routes(answer)


def test_what_neither_tag_nor_route_names_goes(storage: Storage) -> None:
    for number in (1, 2, 3):
        storage.push("me/greet", number, "latest")
    storage.push("other", 4, "")
    assert prune.prune(storage.folder, {digest(1)}) == (2, 2)
    assert storage.left("me/greet") == {1, 3}
    assert storage.left("other") == set()
    tags = storage.folder / ROOT / "repositories" / "me/greet" / "_manifests" / "tags" / "latest"
    assert {int(link.parent.name, 16) for link in tags.glob("index/sha256/*/link")} == {1, 3}


def test_parts_of_what_is_needed_are_needed(storage: Storage) -> None:
    storage.push("a", 1, "")
    storage.push("a", 2, "")
    storage.push("a", 3, "latest", parts=(1,))
    storage.push("a", 4, "", parts=(2,))
    storage.push("a", 5, "")
    assert prune.prune(storage.folder, {digest(4)}) == (1, 4)
    assert storage.left("a") == {1, 2, 3, 4}


def test_a_repository_inside_of_another_is_looked_at(storage: Storage) -> None:
    storage.push("a", 1, "")
    storage.push("a/b", 2, "")
    storage.push("a/b/c", 3, "x")
    assert prune.prune(storage.folder, set()) == (2, 1)


def test_a_hub_without_any_image(storage: Storage) -> None:
    assert prune.prune(storage.folder, {digest(1)}) == (0, 0)
