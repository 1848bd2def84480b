"""What names an image, what an image is made of, and its bill of materials."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graftline.environment import ROOT
from graftline.images import load_images

sys.path.insert(0, str(ROOT / "tools"))

import images
from sbom import sbom

NAMED = re.compile(r"graftline[-/](?:data|train)[:@][\w:.-]+")
FIELD = re.compile(r"^\s*-?\s*image:\s*(\S+)", re.MULTILINE)
MADE_FROM_THE_LOCK = ("pipelines/compiled/", "infra/components/images/")
LOCKS = sorted((ROOT / "components").glob("*.lock"))


def tracked(*patterns: str) -> list[Path]:
    """Return the repository's files that match, but not the tests, which may plant what they look for."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *patterns, ":!tests"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def pins(lock: Path) -> set[str]:
    return {line.split()[0] for line in lock.read_text().splitlines() if re.match(r"[\w.-]+==", line)}


def test_images_lock_is_the_only_file_that_names_an_image() -> None:
    locked = set(load_images().model_dump().values())
    for path in tracked():
        name = str(path.relative_to(ROOT))
        found = set(NAMED.findall(path.read_text(errors="ignore")))
        if name.startswith(MADE_FROM_THE_LOCK):
            assert found <= locked, name
        elif name != "images.lock":
            assert not found, f"{name} names {found}: read images.lock instead"


def test_manifests_name_no_version_of_an_image() -> None:
    values = [value for path in tracked("infra/*.yaml", ".github/*.yml") for value in FIELD.findall(path.read_text())]
    assert values
    assert {value for value in values if ":" in value or "@" in value} == set()


def test_the_compiled_pipelines_run_the_locked_images() -> None:
    locked = load_images().model_dump().values()
    for path in tracked("pipelines/compiled/*.yaml"):
        text = path.read_text()
        assert all(image in text for image in locked)
        assert set(re.findall(r"^\s*image: (\S+)$", text, re.MULTILINE)) == set(locked)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_an_images_lock_is_a_part_of_the_lock(lock: Path) -> None:
    beside = {pin for pin in pins(lock) if re.match(r"(cuda|nvidia|triton)", pin)}
    assert bool(beside) == (lock.stem == "train-cuda")
    assert pins(lock) - beside < pins(ROOT / "requirements.lock")
    assert ("torch==" in lock.read_text()) == (lock.stem != "data")


@pytest.mark.parametrize("target", ["data", "train"])
def test_the_bill_of_materials_lists_every_package_of_the_lock(target: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    lock = ROOT / "components" / f"{target}.lock"
    text = sbom(target, lock)
    assert text == sbom(target, lock)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert {f"{part['name']}=={part['version']}" for part in bill["components"]} == pins(lock)
    assert {part["purl"] for part in bill["components"]} == {
        f"pkg:pypi/{pin.replace('==', '@')}".replace("+", "%2B") for pin in pins(lock)
    }
    (image,) = (entry for entry in bill["dependencies"] if entry["ref"] == target)
    assert len(image["dependsOn"]) == len(pins(lock))


def test_images_of_code_that_no_commit_has_are_not_pushed_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """K29"""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("GRAFTLINE_COMMIT", raising=False)
    checkout = tmp_path / "checkout"
    (checkout / "src").mkdir(parents=True)
    (checkout / "src/a.py").write_text("")
    monkeypatch.setattr("graftline.environment.ROOT", checkout)
    identity = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", checkout, *command], check=True)

    def told(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            images.main(["--base", "none", *options])
        assert ended.value.code == 2
        return capsys.readouterr().err

    (checkout / "run.log").write_text("an untracked file that is no code")
    assert "--base none: docker has no such image" in told("--push", "registry.example.org/ml")
    (checkout / "src/a.py").write_text("changed")
    assert "--push: code, parameters or locks that no commit has" in told("--push", "registry.example.org/ml")
    for options in ((), ("--push", "registry.example.org/ml", "--with-changes")):
        assert "--base none: docker has no such image" in told(*options)


def test_an_image_is_built_without_the_packages_of_the_other() -> None:
    """K32: the classic builder builds every stage above its target, whether the target needs it or not."""
    text = (ROOT / "components/Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    bodies = dict(zip(stages, re.split(r"^FROM .*$", text, flags=re.MULTILINE)[1:], strict=True))
    before = stages[: stages.index("data") + 1]
    assert "data" in stages and not [stage for stage in before if "TRAIN_LOCK" in bodies[stage]]
