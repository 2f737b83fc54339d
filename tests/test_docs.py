"""The documentation is run: snippets of the README and the guide, examples of docstrings, links between files."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import lrla

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lrla.__path__, "lrla.")
    if not module.name.endswith(("__main__", "_dask"))
)
CALLABLES = {name: getattr(lrla, name) for name in lrla.__all__ if name != "__version__"}


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def snippets(path: Path) -> str:
    """All Python blocks of a page as one program, each line where it stands in the page."""
    lines = path.read_text("utf-8").splitlines()
    program, indent = [], None
    for line in lines:
        fence = re.fullmatch(r"( *)```(\w*)", line)
        if fence:
            indent = len(fence[1]) if fence[2] == "python" and indent is None else None
            program.append("")
        else:
            program.append(line[indent:] if indent is not None else "")
    return "\n".join(program)


@pytest.mark.parametrize("path", [path for path in PAGES if snippets(path).strip()], ids=page_id)
def test_the_snippets_of_a_page_run(path):
    exec(compile(snippets(path), str(path), "exec"), {"__name__": "snippets"})


def test_the_pages_with_snippets_are_found():
    found = {page_id(path) for path in PAGES if snippets(path).strip()}
    assert {"README.md", "docs/index.md", "docs/user_guide/svd.md"} <= found


@pytest.mark.parametrize("name", ["lrla", *MODULES])
def test_the_examples_of_a_module_run(name):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert result.failed == 0


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_local_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def documented(text: str, section: str) -> list[str]:
    """The names in a section of a numpydoc docstring; one line may hold several, and stars are left out."""
    lines = inspect.cleandoc(text).splitlines()
    if section not in lines:
        return []
    start = lines.index(section) + 2
    names = []
    for line, below in zip(lines[start:], [*lines[start + 1 :], ""], strict=True):
        if below and set(below) == {"-"}:
            break
        if line and not line.startswith(" "):
            names += [name.strip(" *") for name in line.partition(" : ")[0].split(",")]
    return names


@pytest.mark.parametrize("name", CALLABLES)
def test_every_parameter_is_documented_in_order(name):
    parameters = inspect.signature(CALLABLES[name]).parameters
    assert documented(CALLABLES[name].__doc__, "Parameters") == list(parameters)


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_docstring_is_complete(name):
    lines = inspect.cleandoc(CALLABLES[name].__doc__).splitlines()
    result = "Attributes" if inspect.isclass(CALLABLES[name]) else "Returns"
    missing = [section for section in ("Parameters", result, "Notes", "References", "Examples") if section not in lines]
    assert missing == []
    assert lines[0].endswith(".")


METHODS = [
    (name, method)
    for name, cls in CALLABLES.items()
    if inspect.isclass(cls)
    for method, function in vars(cls).items()
    if inspect.isfunction(function) and not method.startswith("_")
]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_every_parameter_of_a_method_is_documented(name, method):
    function = inspect.unwrap(vars(CALLABLES[name])[method])
    parameters = [parameter for parameter in inspect.signature(function).parameters if parameter not in ("self", "y")]
    found = [parameter for parameter in documented(function.__doc__ or "", "Parameters") if parameter != "y"]
    assert found == parameters
