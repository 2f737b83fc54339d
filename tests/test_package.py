"""The package as a whole: its version, its public names, what an import costs, and what the wheel holds."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import lrla

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "scipy", "sklearn", "numba", "array_api_compat", "pandas", "torch", "dask", "matplotlib", "tqdm")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "lrla/__init__.py"
    assert version("lrla") == lrla.__version__


def test_citation_and_changelog_name_this_version():
    assert f"version: {lrla.__version__}" in (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == lrla.__version__


def test_import_loads_no_other_library():
    loaded = run(f"import sys, lrla; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded == "[]"


def test_dir_does_not_load_anything_either():
    assert run("import sys, lrla; dir(lrla); print('numpy' in sys.modules)") == "False"


def test_array_routines_do_not_load_optional_libraries():
    optional = ("pandas", "torch", "dask", "cupy", "matplotlib", "polars")
    work = "import sys, numpy, lrla; lrla.truncated_svd(numpy.eye(6), 2); "
    assert run(work + f"print([name for name in {optional!r} if name in sys.modules])") in (
        "[]",
        "['pandas']",
    )  # scikit-learn loads pandas where it is installed


@pytest.mark.parametrize("name", lrla.__all__)
def test_a_public_name_resolves_and_is_listed(name):
    assert getattr(lrla, name) is not None
    assert name in dir(lrla)


@pytest.mark.parametrize("name", sorted(set(lrla.__all__) - {"__version__"}))
def test_a_public_name_has_a_docstring_with_an_example(name):
    text = getattr(lrla, name).__doc__
    assert "Parameters\n" in text
    assert ">>> " in text


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'svdd'"):
        lrla.svdd  # noqa: B018


def test_the_wheel_holds_the_package_its_types_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "lrla/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"lrla", f"lrla-{lrla.__version__}.dist-info"}
    assert {f"lrla/{path.relative_to(ROOT / 'lrla').as_posix()}" for path in (ROOT / "lrla").rglob("*.py")} <= set(
        names
    )


def test_python_m_lrla_prints_what_a_bug_report_needs():
    done = subprocess.run([sys.executable, "-m", "lrla"], capture_output=True, text=True, check=True, cwd=ROOT)
    for word in (lrla.__version__, "numpy", "scikit-learn", "threads", "GPU", "tour"):
        assert word in done.stdout
