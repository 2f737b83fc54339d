"""The floors of docs/architecture.md, checked from the imports that the code really has."""

from __future__ import annotations

import ast
import builtins
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lrla

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "lrla").rglob("*.py"))

# The first word after "lrla." -> its floor.  A new room fails until it is on a floor, here and in the document.
FLOORS = {
    **dict.fromkeys(
        ("exceptions", "_arrays", "_random", "_jit", "_threads", "_progress", "_validation", "_estimator", "_lazy"), 0
    ),
    "linalg": 1,
    "sketch": 2,
    "svd": 3,
    **dict.fromkeys(("ridge", "completion", "recovery", "tucker", "dictionary", "dct"), 4),
    **dict.fromkeys(("datasets", "plotting"), 5),
}
# What a floor may import besides the standard library and the floors below it; inside functions the same holds.
LIBRARIES = {
    0: {"numpy", "array_api_compat"},
    1: {"numpy", "array_api_compat", "scipy", "threadpoolctl"},
    2: {"numpy", "array_api_compat", "scipy", "threadpoolctl"},
    3: {"numpy", "array_api_compat", "scipy", "threadpoolctl"},
    4: {"numpy", "array_api_compat", "scipy", "threadpoolctl"},
    5: {"numpy", "scipy", "sklearn"},
}
# Single files that may import more, at the top ...
FILE_LIBRARIES = {
    "lrla/_jit.py": {"numba"},
    "lrla/_threads.py": {"joblib"},
    "lrla/_validation.py": {"sklearn"},
    "lrla/_estimator.py": {"sklearn"},
}
# ... and inside functions only.  Nobody imports cupy, torch, dask, pandas, polars by name: their types are recognised.
LAZY_LIBRARIES = {"lrla/_arrays.py": {"cupyx"}, "lrla/_progress.py": {"tqdm"}}
KERNEL_LIBRARIES = {"numpy", "numba", "math", "__future__"}


@dataclass(frozen=True)
class Import:
    module: str
    names: tuple[str, ...]
    lazy: bool  # inside a function
    line: int

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def imports(node: ast.AST, package: str, lazy: bool = False) -> Iterator[Import]:
    """All imports below a node; those for type checkers only (`if TYPE_CHECKING`) are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, (), lazy, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            above = package.rsplit(".", child.level - 1)[0] if child.level else ""
            module = ".".join(filter(None, (above, child.module)))
            names = tuple(alias.name for alias in child.names)
            if module in ("lrla", package):  # "from lrla import _arrays" imports the module lrla._arrays
                for name in names:
                    yield Import(f"{module}.{name}", (), lazy, child.lineno)
            else:
                yield Import(module, names, lazy, child.lineno)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(child, package, lazy or inside)


def room_of(path: str) -> str:
    return path.split("/")[1].removesuffix(".py")


def is_estimator_file(tree: ast.Module) -> bool:
    """A file with a public class of lrla, or a base or mixin of estimators; everything else is an algorithm file."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = [ast.unparse(base) for node in classes for base in node.bases]
    return any(node.name in lrla.__all__ for node in classes) or any(
        base.endswith(("Estimator", "Mixin")) for base in bases
    )


def violations(path: str, source: str) -> list[str]:
    """What a file imports and must not, in words."""
    tree, room, file = ast.parse(source), room_of(path), path.rsplit("/", 1)[-1]
    package = path.removesuffix(".py").replace("/", ".").rpartition(".")[0]
    found = list(imports(tree, package))
    if room in (
        "__init__",
        "__main__",
    ):  # the doors of the package itself: nothing but the standard library, until asked
        return [
            f"{path}:{i.line} imports {i.module} at the top"
            for i in found
            if not (i.lazy or i.root == "lrla" or is_standard(i.root))
        ]
    if room not in FLOORS:
        return [f"{path}: room {room!r} is on no floor"]
    if file.endswith("_kernels.py"):
        return [
            f"{path}:{i.line} imports {i.module}"
            for i in found
            if i.root not in KERNEL_LIBRARIES and i.module != "lrla._jit"
        ]
    return [f"{path}:{i.line} imports {i.module}: {why}" for i in found if (why := reason(i, path, tree, FLOORS[room]))]


def reason(i: Import, path: str, tree: ast.Module, floor: int) -> str:
    """Why a file on this floor must not import this; empty where it may."""
    if is_standard(i.root):
        return ""
    if i.root == "lrla":
        return reason_inside(i, room_of(path), floor)
    if i.root == "sklearn":
        parts = [*i.module.split("."), *i.names]
        if any(part.startswith("_") for part in parts):
            return "a private name of scikit-learn"
        if floor and is_estimator_file(tree):
            return ""
    if i.root in LIBRARIES[floor] | FILE_LIBRARIES.get(path, set()):
        return ""
    if path.endswith("/_dask.py") and i.root == "dask":
        return ""
    if i.root in LAZY_LIBRARIES.get(path, set()) | ({"matplotlib"} if floor == 5 else set()):
        return "" if i.lazy else "only inside a function"
    return f"not for floor {floor}"


def reason_inside(i: Import, room: str, floor: int) -> str:
    parts = i.module.split(".")
    target = parts[1] if len(parts) > 1 else ""
    if parts[-1] == "_dask" and not i.lazy:
        return "only inside a function"
    if target == room:
        return ""
    if floor == 5 and target not in FLOORS:
        return ""  # public names, through the package itself
    if target not in FLOORS:
        return "no room of lrla"
    if FLOORS[target] > floor or (FLOORS[target] == floor and floor > 0):
        return f"floor {FLOORS[target]} is not below floor {floor}"
    return ""


def is_standard(root: str) -> bool:
    return root in sys.stdlib_module_names


def open_names(source: str) -> list[str]:
    """What the kernels of a file take from outside the file, and the BLAS that they use."""
    tree = ast.parse(source)
    own = {"np", "math", "numba", "fetch", *vars(builtins)}  # fetch: an instruction, of `_jit`
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Assign):
            own |= stored_names(node)
    return [
        f"line {node.lineno}: {ast.unparse(node)[:60]}"
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and is_compiled(function)
        for statement in function.body
        for node in ast.walk(statement)
        if is_blas(node) or (isinstance(node, ast.Name) and node.id not in own | stored_names(function))
    ]


def is_compiled(function: ast.FunctionDef) -> bool:
    """A kernel: decorated with `kernel` or `numba.njit`.  What tells Numba how to compile is ordinary Python."""
    return any(("kernel" in text) or ("njit" in text) for text in map(ast.unparse, function.decorator_list))


def is_blas(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.MatMult)
    return isinstance(node, ast.Attribute) and ast.unparse(node) in ("np.linalg", "np.dot", "np.matmul", "np.vdot")


def stored_names(node: ast.AST) -> set[str]:
    """Names that are assigned below a node, and the arguments of functions."""
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}


@pytest.mark.parametrize("path", FILES)
def test_a_file_imports_only_what_its_floor_allows(path):
    assert violations(path, (ROOT / path).read_text("utf-8")) == []


@pytest.mark.parametrize("path", [path for path in FILES if path.endswith("_kernels.py")])
def test_kernels_use_only_their_own_file_and_no_blas(path):
    assert open_names((ROOT / path).read_text("utf-8")) == []


def test_every_room_has_its_row_in_the_document():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert sorted(room for room in rooms if f"`{room}`" not in text) == []


@pytest.mark.parametrize(
    ("path", "source", "why"),
    [
        ("lrla/_random.py", "import scipy", "not for floor 0"),
        ("lrla/_random.py", "from lrla import linalg", "floor 1 is not below floor 0"),
        ("lrla/_random.py", "import numba", "not for floor 0"),
        ("lrla/_arrays.py", "import cupyx", "only inside a function"),
        ("lrla/_arrays.py", "def f():\n    import torch", "not for floor 0"),
        ("lrla/_validation.py", "from sklearn.utils._array_api import device", "private name"),
        ("lrla/linalg/_polar.py", "from lrla.svd import truncated_svd", "floor 3 is not below floor 1"),
        ("lrla/linalg/_polar.py", "from sklearn.utils import check_array", "not for floor 1"),
        ("lrla/svd/_krylov.py", "from sklearn.base import BaseEstimator", "not for floor 3"),
        ("lrla/svd/_krylov.py", "def f():\n    import dask", "not for floor 3"),
        ("lrla/svd/_krylov.py", "from ..ridge import Ridge", "floor 4 is not below floor 3"),
        ("lrla/ridge/_ridge.py", "from lrla.tucker import tucker", "floor 4 is not below floor 4"),
        ("lrla/ridge/_ridge.py", "from lrla.ridge import _dask", "only inside a function"),
        ("lrla/ridge/_kernels.py", "from lrla.linalg._kernels import dot", "imports lrla.linalg._kernels"),
        ("lrla/attic/_old.py", "", "is on no floor"),
        ("lrla/__init__.py", "import numpy", "at the top"),
    ],
)
def test_a_forbidden_import_is_found(path, source, why):
    assert why in " ".join(violations(path, source))


def test_an_estimator_file_may_import_scikit_learn():
    source = "from sklearn.base import TransformerMixin\nclass PCA(TransformerMixin): pass"
    assert violations("lrla/svd/_pca.py", source) == []


@pytest.mark.parametrize("body", ["helper(x)", "f(helper)", "lrla._jit.f(x)", "np.linalg.svd(x)", "x @ x", "kernel(x)"])
def test_an_open_kernel_is_found(body):
    assert open_names(f"@kernel()\ndef f(x):\n    return {body}")


def test_a_closed_kernel_is_let_through():
    source = """
        SIZE = 3

        @numba.njit(nogil=True)
        def g(x):
            return len(x) + SIZE

        @kernel(error_model="numpy")
        def f(x):
            y = np.zeros(3)
            for i in range(3):
                y[i] = math.sqrt(g(x))
            return y.sum()
    """
    assert open_names(textwrap.dedent(source)) == []
