"""`graftline export`: files, folders, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made import release

from graftline.cli.export import SUFFIXES, Format, export
from graftline.errors import InputError
from graftline.exports.facts import Facts
from graftline.store import Store
from graftline.store.opening import open_store


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.MLFLOW])
def test_one_release_is_one_file_and_its_bytes_are_the_same_each_time(
    store: Store, tmp_path: Path, form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        export(form, "digits@1", out=tmp_path / name, store=store.url)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert f"{form} of digits@1: {tmp_path / 'one'}" in capsys.readouterr().out


def test_all_releases_are_a_folder_of_files_or_one_mlflow_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "store"))
    for number in (1, 2):
        release(store, tmp_path / f"run-{number}", salt=str(number))
    export(Format.PROV, out=tmp_path / "prov", as_json=True, store=store.url)
    names = [f"digits-{number}{SUFFIXES[Format.PROV]}" for number in (1, 2)]
    assert sorted(path.name for path in (tmp_path / "prov").iterdir()) == names
    said = json.loads(capsys.readouterr().out)
    assert said["releases"] == ["digits@1", "digits@2"] and len(said["written"]) == 2
    export(Format.MLFLOW, out=tmp_path / "mlruns", store=store.url)
    assert len(list((tmp_path / "mlruns").glob("*/*/params"))) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder: there are many releases"):
        export(Format.PROV, out=tmp_path / "file", store=store.url)


def test_what_makes_no_sense_is_refused(store: Store, tmp_path: Path, facts: Facts) -> None:
    with pytest.raises(InputError, match="-o: not given"):
        export(Format.SLSA, "digits@1", store=store.url)
    with pytest.raises(InputError, match="--to: given with --format prov"):
        export(Format.PROV, "digits@1", to="http://127.0.0.1:1/", store=store.url)
    with pytest.raises(InputError, match="no releases"):
        export(Format.PROV, out=tmp_path / "x", store=str(tmp_path / "empty"))


def test_exporting_needs_none_of_the_libraries_of_the_standards(store: Store, tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from graftline.cli.export import Format, export\n"
        f"for form in Format: export(form, 'digits@1', out=Path({str(tmp_path)!r}) / form, store={store.url!r})\n"
        "print([m for m in ('openlineage', 'cyclonedx', 'prov', 'mlcroissant', 'mlflow', 'in_toto_attestation',"
        " 'packageurl', 'jsonschema') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
