"""The tree's promises: DVC's deps follow imports, components stand alone, one spelling, nothing unpickled."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from graftline.environment import ROOT
from graftline.tasks.parameters import COMPONENTS
from graftline.yamlfile import load_yaml

SOURCES = {
    "graftline.components": ROOT / "components",
    "graftline.pipelines": ROOT / "pipelines",
    "graftline": ROOT / "src/graftline",
}
CODE = sorted(
    path
    for top in (*SOURCES.values(), ROOT / "tests", ROOT / "bench")
    for path in top.rglob("*.py")
    if "__pycache__" not in path.parts
)
SHIPPED = [path for path in CODE if ROOT / "tests" not in path.parents]


def module_file(module: str) -> Path | None:
    """Return the file of a module of graftline, or None if there is no such module."""
    for package, folder in SOURCES.items():
        if module == package or module.startswith(package + "."):
            base = folder.joinpath(*module.removeprefix(package).strip(".").split("."))
            return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)
    return None


def module_name(path: Path) -> str:
    """Return the module that `path` is: `module_file(module_name(path)) == path`."""
    package, folder = next((p, f) for p, f in SOURCES.items() if path.is_relative_to(f))
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module, at any depth, but for those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from walk_executed(child)


@cache
def imported(path: Path) -> frozenset[str]:
    """Return the modules that the file imports anywhere, function bodies included: absolute dotted names."""
    names: set[str] = set()
    for node in walk_executed(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the one spelling"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def graftline_imports(path: Path) -> set[Path]:
    """Return the files of graftline that importing `path` may load, each with its packages' `__init__.py`."""
    found = set()
    for name in imported(path):
        if name.split(".")[0] == "graftline":
            parts = name.split(".")
            found |= {module_file(".".join(parts[:end])) for end in range(1, len(parts) + 1)}
    return {file for file in found if file}


def closure(component: str) -> set[Path]:
    """Return every file of graftline that a run of `component` may load."""
    folder = ROOT / "components" / component
    uses_store = "uses_store=True" in (folder / "__init__.py").read_text()
    seen: set[Path] = set()
    queue = [*folder.rglob("*.py"), module_file("graftline"), module_file("graftline.components")]
    while queue:
        path = queue.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        following = graftline_imports(path)
        if module_name(path) == "graftline.component" and not uses_store:
            # Context.store() imports the store when it is called; only components that declare it call it.
            following = {file for file in following if not file.is_relative_to(ROOT / "src/graftline/store")}
        queue += following
    return seen


def expected_code_deps(component: str) -> list[str]:
    """Return the deps that dvc.yaml should list: the component's folder, other modules one by one."""
    deps = set()
    for path in closure(component):
        relative = path.relative_to(ROOT)
        if relative.is_relative_to(Path("components", component)):
            deps.add(f"components/{component}")
        else:
            deps.add(relative.as_posix())
    return sorted(deps)


def stage(component: str) -> dict[str, Any]:
    declared: dict[str, Any] = load_yaml(ROOT / "dvc.yaml")["stages"][component]["do"]
    return declared


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_stages_deps_are_the_code_that_it_imports(component: str) -> None:
    listed = [dep for dep in stage(component)["deps"] if dep.startswith(("components", "src"))]
    expected = expected_code_deps(component)
    missing, extra = sorted(set(expected) - set(listed)), sorted(set(listed) - set(expected))
    assert not missing, f"dvc.yaml, {component}: add these deps:\n" + "\n".join(
        f"      - {dep}" for dep in missing
    )
    assert not extra, f"dvc.yaml, {component}: not imported, remove:\n" + "\n".join(
        f"      - {dep}" for dep in extra
    )


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_closure_holds_what_a_process_really_loads(component: str) -> None:
    """The static closure is checked against a running interpreter, so that it cannot be blind."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        f"from graftline.components.{component} import COMPONENT\n"
        "COMPONENT.load()\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'graftline'), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {Path(line) for line in done.stdout.split("\n") if line} <= closure(component)


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_do_not_import_one_another(component: str) -> None:
    own = f"graftline.components.{component}."
    for path in (ROOT / "components" / component).rglob("*.py"):
        others = {name for name in imported(path) if name.startswith("graftline.components.")}
        foreign = {name for name in others if not f"{name}.".startswith(own)}
        assert not foreign, f"{path}: imports {sorted(foreign)}"


def test_the_library_does_not_import_components() -> None:
    """What starts a component does so by its name; what components share lies in the library."""
    for path in (ROOT / "src/graftline").rglob("*.py"):
        above = ("graftline.components",)
        if path.relative_to(ROOT / "src/graftline").parts[0] != "cli":
            above += ("graftline.cli",)
        names = {name for name in imported(path) if name.startswith(above)}
        assert not names, f"{path}: imports {sorted(names)}"


def test_no_code_knows_a_tasks_name() -> None:
    """Adding a task touches data/ only."""
    tasks = [path.parent.name for path in (ROOT / "data").glob("*/params.yaml")]
    assert tasks
    for path in SHIPPED:
        if path.is_relative_to(ROOT / "components"):
            words = set(re.findall(r"[a-z0-9_-]+", path.read_text().lower()))
            assert not words & set(tasks), f"{path} names the task {sorted(words & set(tasks))}"


def test_components_and_pipelines_have_one_spelling() -> None:
    for path in CODE:
        bare = {name for name in imported(path) if name.split(".")[0] in ("components", "pipelines")}
        assert not bare, f"{path}: write graftline.{sorted(bare)[0]}"


UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BETWEEN_OWN_PROCESSES = {ROOT / "src/graftline/index/reading.py": {"marshal"}}
"""What a pool would pickle through its pipe: written and read back within one call, in a private folder."""
UNSAFE_CALLS = {
    "torch.load", "torch.hub.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "pandas.read_pickle", "pd.read_pickle",
}  # fmt: skip


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_nothing_is_unpickled_and_yaml_is_read_in_one_place() -> None:
    for path in SHIPPED:
        unsafe = {name for name in imported(path) if name.split(".")[0] in UNSAFE_IMPORTS}
        unsafe -= BETWEEN_OWN_PROCESSES.get(path, set())
        assert not unsafe, f"{path}: imports {sorted(unsafe)}"
        if path == ROOT / "src/graftline/yamlfile.py":  # the one reader: a safe loader, with limits
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                assert name not in UNSAFE_CALLS, f"{path}:{node.lineno}: {name}"
                trusting = [k for k in node.keywords if k.arg in ("trust_remote_code", "allow_pickle")]
                assert not trusting, f"{path}:{node.lineno}: {trusting[0].arg}"


def test_the_yaml_reader_uses_a_safe_loader() -> None:
    from graftline import yamlfile

    assert yamlfile._Loader.__name__ in ("CSafeLoader", "SafeLoader")


def test_every_component_folder_is_complete() -> None:
    for component in COMPONENTS:
        folder = ROOT / "components" / component
        for name in ("__init__.py", "__main__.py", f"{component}.py", "README.md"):
            assert (folder / name).is_file(), f"components/{component}/{name} is missing"


def test_every_package_is_installed() -> None:
    """A folder of modules that pyproject.toml does not name would be missing from an image."""
    import tomllib

    named = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {module_name(path) for folder in SOURCES.values() for path in folder.rglob("__init__.py")}
    assert found == named
