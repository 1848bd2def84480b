"""Check the manifests, workflows, Terraform and the Dockerfile: `make manifests`. Exit codes: 0 clean, 1 not.

python infra/check [--root FOLDER] [--out FOLDER] [--only CHECK ...] [--write-images]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "infra")  # the folder's own modules are `check.*`, however it is started

import yaml  # noqa: E402

from check import egress, external, images, schemas  # noqa: E402
from check.pods import inner  # noqa: E402
from check.render import Document, folders, render  # noqa: E402
from graftline.errors import GraftlineError  # noqa: E402


@dataclass
class Result:
    """One line of the table, and the errors behind its number."""

    name: str
    checked: str
    errors: list[str]
    notes: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--out", type=Path, help="where what kustomize builds goes (build/manifests/rendered)")
    parser.add_argument("--only", nargs="+", choices=sorted(CHECKS), default=sorted(CHECKS), help="some checks")
    parser.add_argument("--write-images", action="store_true", help="write the images' component and stop")
    given = parser.parse_args(arguments)
    root = given.root.resolve()
    try:
        if given.write_images:
            images.write(root)
            return 0
        out = given.out or root / "build/manifests/rendered"
        results = [result for name in CHECKS if name in given.only for result in CHECKS[name](root, out)]
    except GraftlineError as error:
        print(f"manifests: {error}", file=sys.stderr)
        return error.exit_code
    return report(results)


def report(results: list[Result]) -> int:
    """Print every error, then the table; return the exit code."""
    for result in results:
        for error in result.errors:
            print(f"{result.name}: {error}")
    width = max(len(result.name) for result in results)
    print(f"\n{'check':{width}}  errors  what was checked")
    for result in results:
        print(f"{result.name:{width}}  {len(result.errors):6}  {result.checked}")
        for note in result.notes:
            print(f"{'':{width}}          {note}")
    total = sum(len(result.errors) for result in results)
    print(f"{'in all':{width}}  {total:6}")
    return 1 if total else 0


def build(root: Path, out: Path) -> tuple[list[Document], list[str]]:
    """Build all that is deployed into `out`, and for checkov each different object once, custom resources' pods too."""
    found, unbuilt = render(root, out)
    once = schemas.distinct([*found, *(part for document in found for part in inner(document))])
    (out / "once").mkdir()
    text = yaml.dump_all([document.value for document in once], Dumper=yaml.CSafeDumper)
    (out / "once/objects.yaml").write_text(text, encoding="utf-8")
    return found, unbuilt


def check_manifests(root: Path, out: Path) -> list[Result]:
    """Build every overlay; check what comes out against the schemas and checkov."""
    found, unbuilt = build(root, out)
    results = [
        Result("images", "infra/components/images against images.lock", images.drift(root)),
        Result("kustomize", f"{len(folders(root))} folders: {', '.join(f.name for f in folders(root))}", unbuilt),
    ]
    results.append(Result("egress", "the ports of the settings' addresses", egress.shut(found)))
    objects = f"{len(found)} objects, {len(schemas.distinct(found))} different"
    for version, errors in schemas.validate(found, ROOT / "infra/schemas").items():
        name = "schemas, custom resources" if version == "custom" else f"schemas, Kubernetes {version}"
        results.append(Result(name, objects, errors))
    return results


def check_checkov(root: Path, out: Path) -> list[Result]:
    build(root, out)
    errors, counts = external.checkov(root, out / "once")
    return [Result("checkov", "what kustomize built, infra/terraform, Dockerfile, workflows", errors, counts)]


def check_terraform(root: Path, _: Path) -> list[Result]:
    errors, unchecked = external.terraform(root)
    return [Result("terraform", "format, and validity where providers are installed", errors, unchecked)]


CHECKS: dict[str, Callable[[Path, Path], list[Result]]] = {
    "manifests": check_manifests,
    "checkov": check_checkov,
    "hadolint": lambda root, _: [Result("hadolint", "components/Dockerfile", external.hadolint(root))],
    "zizmor": lambda root, _: [Result("zizmor", ".github/workflows, pedantic", external.zizmor(root))],
    "yamllint": lambda root, _: [Result("yamllint", "infra, .github, pipelines", external.yamllint(root))],
    "terraform": check_terraform,
}

if __name__ == "__main__":
    sys.exit(main())
