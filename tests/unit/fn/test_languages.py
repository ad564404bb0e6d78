"""Is the language of a folder found, and does each have all that its functions are made of?"""

import re

import pytest

from fn import languages
from fn.errors import FnError


@pytest.mark.parametrize(
    ("names", "runtime"),
    [
        (["func.py", "README.md"], "python"),
        (["func.js", "package.json"], "node"),
        (["func.go", "go.mod"], "go"),
        (["main.go"], "go"),
        (["func.rb"], "ruby"),
        (["func.php"], "php"),
        (["func.rs"], "rust"),
        (["Cargo.toml", "src"], "rust"),
        (["Func.java"], "java"),
        (["func.java"], "java"),
        (["func.sh"], "bash"),
        (["func.py", "Dockerfile"], "docker"),
        (["README.md"], ""),
        (["func"], ""),
    ],
)
def test_the_files_tell_the_runtime(names: list[str], runtime: str) -> None:
    assert languages.detect(names) == runtime


def test_a_program_is_a_function() -> None:
    assert languages.detect(["func"], has_binary=True) == "binary"


def test_what_the_original_knew_and_this_one_does_not_is_told() -> None:
    with pytest.raises(FnError, match=r"func\.cs: there is no runtime dotnet here"):
        languages.detect(["func.cs"])


@pytest.mark.parametrize(
    ("runtime", "found"),
    [
        ("python", ("python", "")),
        ("Python:3.11", ("python", "3.11")),
        ("nodejs", ("node", "")),
        ("golang", ("go", "")),
        ("docker", ("docker", "")),
        ("sh", ("bash", "")),
    ],
)
def test_a_runtime_has_several_names(runtime: str, found: tuple[str, str]) -> None:
    assert languages.split(runtime) == found


def test_an_unknown_runtime_is_told_with_a_guess_and_the_list() -> None:
    with pytest.raises(FnError) as caught:
        languages.split("pyton")
    assert caught.value.message == "there is no runtime `pyton`; did you mean `python`?"
    assert all(name in caught.value.hint for name in [*languages.LANGUAGES, "docker"])


@pytest.mark.parametrize("language", languages.LANGUAGES.values(), ids=lambda one: one.name)
def test_each_language_has_what_its_functions_are_made_of(language: languages.Language) -> None:
    template = languages.template(language)
    assert "{{base}}" in template
    assert ("{{build_base}}" in template) >= language.has_dev
    for format_ in language.formats:
        written = set(languages.example(language, format_))
        assert written & {language.source, *language.signs}
        assert languages.has_code(language, written)


def recipes() -> list[tuple[languages.Language, bool]]:
    kinds = [(one, dev) for one in languages.LANGUAGES.values() for dev in (False, True)]
    return [(one, dev) for one, dev in kinds if (one.has_dev if dev else one.has_base)]


@pytest.mark.parametrize(("language", "dev"), recipes(), ids=lambda v: getattr(v, "name", str(v)))
def test_a_base_images_recipe_says_its_name(language: languages.Language, *, dev: bool) -> None:
    tag = f"{language.version}{'-dev' if dev else ''}"
    recipe = languages.recipe(language, dev=dev)
    said = re.findall(r"^LABEL millrace\.runtime=(.*)$", recipe, re.MULTILINE)
    assert said == [f"{language.name}:{tag}"]
