"""The tree's promises: DVC sees what decides, components stand alone, no circles, one spelling, nothing unpickled."""

from __future__ import annotations

import ast
import gc
import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import forked
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


@cache
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
    """Yield the statements of a module, at any depth, but for those that only a type checker reads."""
    waiting = [node]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(child, ast.expr) and not is_type_checking(child):
                yield child
                waiting.append(child)


@pytest.fixture(scope="module", autouse=True)
def trees() -> Iterator[None]:
    """They are no garbage: to go through them again and again took most of the time."""
    gc.disable()
    yield
    tree.cache_clear()
    gc.enable()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@cache
def imported(path: Path) -> frozenset[str]:
    """Return the modules that the file imports anywhere, function bodies included: absolute dotted names."""
    names: set[str] = set()
    for node in walk_executed(tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the one spelling"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


@cache
def graftline_imports(path: Path) -> set[Path]:
    """Return the files of graftline that importing `path` may load, each with its packages' `__init__.py`."""
    found = set()
    for name in imported(path):
        if name.split(".")[0] == "graftline":
            parts = name.split(".")
            found |= {module_file(".".join(parts[:end])) for end in range(1, len(parts) + 1)}
    return {file for file in found if file} | by_name(path)


def by_name(path: Path) -> set[Path]:
    """Return what a registry of folders loads by their names: any of their files, or those of its own name."""
    if path.name not in ("registry.py", "images.py") or "import_module" not in path.read_text(encoding="utf-8"):
        return set()
    loaded = "*.py" if path.name == "registry.py" else path.name
    return {file for folder in path.parent.iterdir() if folder.is_dir() for file in folder.glob(loaded)}


@cache
def closure(component: str) -> frozenset[Path]:
    """Return every file of graftline that a run of `component` may load."""
    folder = ROOT / "components" / component
    seen: set[Path] = set()
    queue = [*folder.rglob("*.py"), module_file("graftline"), module_file("graftline.components")]
    while queue:
        path = queue.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        queue += graftline_imports(path)
    return frozenset(seen)


# What stages load and do not list in dvc.yaml: it cannot decide what their outputs hold, so an edit reruns nothing.
CANNOT_DECIDE = {
    "components/__init__.py": "a docstring",
    "src/graftline/__init__.py": "the version",
    "src/graftline/tasks/__init__.py": "a docstring",
    "src/graftline/canonical.py": "RFC 8785 says which bytes it writes; it reads JSON",
    "src/graftline/digests.py": "SHA-256 of content",
    "src/graftline/durable.py": "how bytes reach the disk, not which",
    "src/graftline/environment.py": "what a record tells of the machine",
    "src/graftline/errors.py": "the words of a failure, which leaves no output",
    "src/graftline/executor_output.py": "what Kubeflow is told beside the output",
    "src/graftline/ledger": "the log of releases: it lies in the store",
    "src/graftline/processes.py": "how processes load modules, and end",
    "src/graftline/records": "the record beside an output, not the output",
    "src/graftline/cache.py": "where this machine keeps copies",
    "src/graftline/runs.py": "the names of a run's own files in the store",
    "src/graftline/signing": "who signed a record",
    "src/graftline/store": "where bytes lie; what is read has the digest that was asked for",
    "src/graftline/times.py": "clocks, which no output holds",
    "src/graftline/yamlfile.py": "YAML and its limits; DVC compares the parameters themselves",
}
CANNOT_DECIDE_HERE = {
    "validate": {
        "src/graftline/learning": "how a process is stopped; nothing is learned",
        "src/graftline/releases": "finds the champion, of whose drift the run only warns",
    },
    "publish": {"src/graftline/learning": "how a process is stopped; nothing is learned"},
}


def stage(component: str) -> dict[str, Any]:
    declared: dict[str, Any] = load_yaml(ROOT / "dvc.yaml")["stages"][component]["do"]
    return declared


def code_deps(component: str) -> list[str]:
    return [dep for dep in stage(component)["deps"] if dep.startswith(("components", "src"))]


def within(path: str, places: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{place}/") for place in places)


@cache
def loaded(component: str) -> frozenset[str]:
    return frozenset(path.relative_to(ROOT).as_posix() for path in closure(component))


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_stage_depends_on_all_code_that_can_decide_its_output(component: str) -> None:
    """A module that is new in a listed folder needs no edit of dvc.yaml, and no code decides unseen by DVC."""
    places = [*code_deps(component), *CANNOT_DECIDE, *CANNOT_DECIDE_HERE.get(component, {})]
    unseen = sorted(path for path in loaded(component) if not within(path, places))
    assert not unseen, f"dvc.yaml, {component}: add its folder, or say here why it cannot decide: {unseen}"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_stage_depends_on_nothing_that_it_does_not_load(component: str) -> None:
    idle = [dep for dep in code_deps(component) if not any(within(path, [dep]) for path in loaded(component))]
    assert not idle, f"dvc.yaml, {component}: not imported, remove {idle}"


def test_no_reason_stands_for_code_that_no_stage_loads() -> None:
    for component in COMPONENTS:
        for place in CANNOT_DECIDE_HERE.get(component, {}):
            assert any(within(path, [place]) for path in loaded(component)), f"{component}: {place}"
    everything = set().union(*map(loaded, COMPONENTS))
    assert [place for place in CANNOT_DECIDE if not any(within(path, [place]) for path in everything)] == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_closure_holds_what_a_process_really_loads(component: str) -> None:
    """The static closure is checked against a running interpreter, so that it cannot be blind.

    A fork with a PYTHONPATH knows libraries, and nothing of graftline.
    """
    code = (
        "import sys\n"
        "assert 'graftline' not in sys.modules\n"
        f"from graftline.components.{component} import COMPONENT\n"
        "COMPONENT.load()\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'graftline'), sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = forked.run([sys.executable, "-c", code], env=environment, text=True)
    assert done.returncode == 0, done.stderr
    assert {Path(line) for line in done.stdout.split("\n") if line} <= closure(component)


@pytest.mark.parametrize("component", COMPONENTS)
def test_components_do_not_import_one_another(component: str) -> None:
    own = f"graftline.components.{component}."
    for path in (ROOT / "components" / component).rglob("*.py"):
        others = {name for name in imported(path) if name.startswith("graftline.components.")}
        foreign = {name for name in others if not f"{name}.".startswith(own)}
        assert not foreign, f"{path}: imports {sorted(foreign)}"


def test_the_library_imports_nothing_above_it() -> None:
    """No file of it imports a component. Commands, engines, plans, reports, audits, doctor sit above pipelines; what
    components and pipelines share lies below them."""
    above = {"audit", "cli", "doctor", "engines", "plan", "report"}
    for path in (ROOT / "src/graftline").rglob("*.py"):
        barred = ["graftline.components"]  # engines start them by name
        if path.relative_to(ROOT / "src/graftline").parts[0] not in above:
            barred += ["graftline.pipelines", "graftline.cli"]
        names = {name for name in imported(path) if name.startswith(tuple(barred))}
        assert not names, f"{path}: imports {sorted(names)}"


def uses(path: Path) -> set[str]:
    """Return the modules of graftline whose content the file takes, at its top or in a function.

    `from a.b import c` takes the module a.b.c, or c out of a.b. That packages are loaded on the way does not count.
    """
    found = set()
    for node in walk_executed(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if module_file(name) else str(node.module) for name in names}
    return {name for name in found if module_file(name)} - {module_name(path)}


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {module_name(path): uses(path) for top in SOURCES.values() for path in top.rglob("*.py")}
    ahead: dict[str, set[str]] = {}
    for module in graph:
        queue, ahead[module] = list(graph[module]), set()
        while queue:
            if (name := queue.pop()) not in ahead[module]:
                ahead[module].add(name)
                queue += graph[name]
    circles = {frozenset(o for o in ahead[m] if m in ahead[o]) for m in graph if m in ahead[m]}
    assert not circles


def test_only_commands_import_commands() -> None:
    for folder in SOURCES.values():
        for path in folder.rglob("*.py"):
            if not path.is_relative_to(ROOT / "src/graftline/cli"):
                names = {name for name in imported(path) if name.startswith("graftline.cli")}
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
    "torch.load",
    "torch.hub.load",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pandas.read_pickle",
    "pd.read_pickle",
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


TENSORS_ALONE = ROOT / "src/graftline/trunks/convert.py"
"""The one reader of PyTorch files: when a person converts one, and by the reader that makes nothing but tensors."""


def only_weights(call: ast.Call) -> bool:
    return any(
        k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords
    )


def test_nothing_is_unpickled_and_yaml_is_read_in_one_place() -> None:
    for path in SHIPPED:
        unsafe = {name for name in imported(path) if name.split(".")[0] in UNSAFE_IMPORTS}
        unsafe -= BETWEEN_OWN_PROCESSES.get(path, set())
        assert not unsafe, f"{path}: imports {sorted(unsafe)}"
        if path == ROOT / "src/graftline/yamlfile.py":  # the one reader: a safe loader, with limits
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                allowed = path == TENSORS_ALONE and name == "torch.load" and only_weights(node)
                assert name not in UNSAFE_CALLS or allowed, f"{path}:{node.lineno}: {name}"
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
    """A folder of modules that setup.py does not find would be missing from a wheel."""
    import runpy

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        named = runpy.run_path("setup.py")["PACKAGES"]
    found = {module_name(path) for folder in SOURCES.values() for path in folder.rglob("__init__.py")}
    assert found == set(named)


KINDS_ARE_KNOWN_IN = tuple(ROOT / "src/graftline" / name for name in ("values", "problems", "trunks"))
"""The only folders that may decide by a kind of column, of problem or of trunk."""
SHARED_WITH_ALL = {
    "graftline.values": {
        "ahead", "column", "columns", "contract", "corruption", "erased", "facts", "histograms", "identity", "leakage",
        "profile", "guesses", "placing", "rle", "rules", "samples", "strings", "suite",
    },
    "graftline.problems": {
        "answers", "embedding", "explained", "fit", "groups", "model", "problem", "reading", "recipes", "registry",
        "scores", "sections", "weighing",
    },
    "graftline.trunks": {
        "registry", "summary", "training", "parameters", "convert", "CONFIG", "SIZES", "WEIGHTS", "read_config",
    },
}  # fmt: skip
"""What others may import of them: what holds for every kind."""
OTHER_MEANINGS = {
    ("src/graftline/dataset.py", "imports graftline.values.registry"): "reads a schema's words",
    ("src/graftline/dataset.py", "imports graftline.values.registry.FEATURE_TYPES"): "reads a schema's words",
    ("src/graftline/dataset.py", "imports graftline.values.registry.LABEL_TYPES"): "reads a schema's words",
    ("src/graftline/lineage/impact.py", "compares with 'image'"): "a container image",
    ("src/graftline/importers/emoji.py", "compares with 'category'"): "what Unicode calls the groups of emoji",
    ("src/graftline/audit/verify/others.py", "compares with 'number'"): "the attempt of a step",
}
"""What looks like such a decision and is none."""


@cache
def decision_words() -> frozenset[str]:
    """Return the words that stand for a kind: of column, of a label's form, of problem, of trunk and of objective."""
    from graftline.problems.registry import PROBLEMS
    from graftline.trunks.registry import AnyObjectiveParams, AnyTrunkParams
    from graftline.values.registry import COLUMN_TYPES, FEATURE_TYPES, LABEL_TYPES

    named = (*get_args(AnyObjectiveParams), *get_args(AnyTrunkParams))
    trunks = {model.model_fields["name"].default for model in named} | {model.family for model in named}
    return frozenset({*COLUMN_TYPES, *FEATURE_TYPES, *LABEL_TYPES, *PROBLEMS, *trunks})


def decisions(path: Path) -> list[str]:
    """Return where a file outside decides by a kind: a class of one imported, or its word compared with something."""
    found = []
    for name in imported(path):
        for package, shared in SHARED_WITH_ALL.items():
            inner = name.removeprefix(f"{package}.")
            if inner != name and inner.split(".")[0] not in shared:
                found.append(f"imports {name}")
    words = decision_words()
    for node in ast.walk(tree(path)):
        compared: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        for side in compared:
            constants = {part.value for part in ast.walk(side) if isinstance(part, ast.Constant)}
            found += [f"compares with {word!r}" for word in constants & words]
        if isinstance(node, ast.arg) and node.annotation is not None and node.arg in words:
            flag = ast.unparse(node.annotation) == "bool"
            found += [f"asks by a flag `{node.arg}: bool`"] if flag else []
    return found


def test_only_their_own_folders_know_kinds_of_columns_problems_and_trunks() -> None:
    """A new kind is a file or a folder there, and a line in the registry: nothing else asks which kind it is."""
    found = {
        (path.relative_to(ROOT).as_posix(), decision)
        for path in SHIPPED
        if not path.is_relative_to(ROOT / "bench")
        if not any(path.is_relative_to(folder) for folder in KINDS_ARE_KNOWN_IN)
        for decision in decisions(path)
    }
    assert found - OTHER_MEANINGS.keys() == set()
    assert OTHER_MEANINGS.keys() - found == set(), "no longer there: take them out of the list"


def test_decisions_by_kind_are_seen(tmp_path: Path) -> None:
    """The test above cannot be blind."""
    file = tmp_path / "file.py"
    file.write_text(
        "from graftline.values.image import ImageColumn\n"
        "def f(kind, text: bool): return kind == 'tokens' or kind in ('text_generation', 'masked_lm')\n"
        "def g(x):\n    match x:\n        case 'conv': pass\n"
    )
    assert set(decisions(file)) == {
        "imports graftline.values.image",
        "imports graftline.values.image.ImageColumn",
        "asks by a flag `text: bool`",
        *(f"compares with {word!r}" for word in ("tokens", "text_generation", "masked_lm", "conv")),
    }
