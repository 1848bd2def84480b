"""The checkers that are programs of their own, each offline. Each returns what it found, one line an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from check.render import TOOLS


def run(command: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    # checkov and zizmor would ask their makers' servers; a configuration of terraform may name a missing file
    environment = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    environment |= {"NO_COLOR": "1", "CHECKPOINT_DISABLE": "1", "LOG_LEVEL": "ERROR"}
    return subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False, env=environment)


def failed(name: str, done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return one error for a checker that did not do its work: no result must not look like a good one."""
    reason = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
    return [f"{name} itself failed (exit code {done.returncode}): {reason[-1]}"]


def yamllint(root: Path) -> list[str]:
    paths = ["infra", ".github", "pipelines/profiles.yaml", "pipelines/schedules.yaml", "images.lock"]
    there = [path for path in paths if (root / path).exists()]
    command = [TOOLS / "yamllint", "--strict", "--format", "parsable", "-c", "infra/yamllint.yaml", *there]
    done = run([str(part) for part in command], root)
    lines = done.stdout.splitlines()
    return lines if lines or done.returncode == 0 else failed("yamllint", done)


def checkov(root: Path, rendered: Path) -> tuple[list[str], list[str]]:
    """Return failed checks, and how many passed and were skipped by framework; none passed is an error too.

    Kubernetes objects are checked as they were built, in the folder `rendered`.
    """
    terraform, image = root / "infra/terraform", root / "components/Dockerfile"
    targets: list[tuple[str, list[str]]] = [("kubernetes", ["--directory", str(rendered)])]
    if terraform.is_dir():
        targets.append(("terraform", ["--directory", str(terraform)]))
    if image.is_file():
        targets.append(("dockerfile", ["--file", str(image)]))
    workflows = sorted((root / ".github/workflows").glob("*.yml"))
    if workflows:  # by name: given a folder, checkov reads all of the repository
        targets.append(("github_actions", [part for path in workflows for part in ("--file", str(path))]))
    errors: list[str] = []
    counts: list[str] = []
    for framework, where in targets:
        command = [str(TOOLS / "checkov"), *where, "--framework", framework, "--skip-download"]
        done = run([*command, "--compact", "--output", "json"], root)
        try:
            results = list(reports(json.loads(done.stdout)))
        except ValueError:
            errors += failed(f"checkov ({framework})", done)
            continue
        passed = sum(result["summary"]["passed"] for result in results)
        skipped = sum(result["summary"]["skipped"] for result in results)
        counts.append(f"{framework}: {passed} passed, {skipped} skipped with a reason")
        if not passed:
            errors.append(f"{framework}: checkov checked nothing")
        for result in results:
            errors += [unread(path) for path in result["results"].get("parsing_errors", [])]
            errors += [line(check) for check in result["results"]["failed_checks"]]
            errors += [unreasoned(check) for check in result["results"]["skipped_checks"] if not reason(check)]
    return errors, counts


def reports(answer: Any) -> Iterator[dict[str, Any]]:
    """Yield each framework's report: checkov prints one, a list, or only a summary where there was nothing."""
    for report in answer if isinstance(answer, list) else [answer]:
        if "results" in report:
            yield report


def reason(check: dict[str, Any]) -> str:
    given = str(check["check_result"].get("suppress_comment") or "").strip()
    return "" if given == "No comment provided" else given


def unreasoned(check: dict[str, Any]) -> str:
    return f"{check['file_path']}: {check['check_id']} is skipped without a reason ({check['resource']})"


def unread(path: str) -> str:
    return f"{path}: checkov cannot read it"


def line(check: dict[str, Any]) -> str:
    first = (check.get("file_line_range") or [0])[0]
    return f"{check['file_path']}:{first}: {check['check_id']} {check['check_name']} ({check['resource']})"


def hadolint(root: Path) -> list[str]:
    done = run([str(TOOLS / "hadolint"), "--no-color", "components/Dockerfile"], root)
    lines = done.stdout.splitlines()
    return lines if lines or done.returncode == 0 else failed("hadolint", done)


def zizmor(root: Path) -> list[str]:
    command = [str(TOOLS / "zizmor"), "--offline", "--persona", "pedantic", "--format", "json", ".github"]
    done = run(command, root)
    try:
        findings = json.loads(done.stdout)
    except ValueError:
        return failed("zizmor", done)
    return [finding_line(finding) for finding in findings if not finding.get("ignored")]


def finding_line(finding: dict[str, Any]) -> str:
    place = finding["locations"][0]
    path = place["symbolic"]["key"].get("Local", {}).get("given_path", "")
    row = place["concrete"]["location"]["start_point"]["row"] + 1
    return f"{path}:{row}: {finding['ident']}: {finding['desc']}"


def terraform(root: Path) -> tuple[list[str], list[str]]:
    """Return what `terraform fmt` and `validate` found, and what could not be checked here."""
    program = shutil.which("terraform")
    if program is None:
        return [], ["terraform is not installed: neither format nor validity of infra/terraform was checked"]
    done = run([program, "fmt", "-check", "-recursive", "-diff", "infra/terraform"], root)
    errors = [f"{name}: run `terraform fmt`" for name in done.stdout.splitlines() if name.endswith(".tf")]
    errors = errors or (failed("terraform fmt", done) if done.returncode else [])
    unchecked = []
    for module in sorted((root / "infra/terraform").iterdir()):
        if not (module / ".terraform").is_dir():
            unchecked.append(f"{module.name}: not validated (`terraform init` there gets the providers)")
            continue
        done = run([program, f"-chdir={module}", "validate", "-no-color"], root)
        errors += [] if done.returncode == 0 else [f"{module.name}: {done.stdout.strip()}"]
    return errors, unchecked
