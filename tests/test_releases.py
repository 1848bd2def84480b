"""Releases: published once, verified when read, pointed at by aliases that follow the ledger."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "store"))

from servers import moto_endpoint, moto_url, real_url, store_url

from graftline.canonical import canonical_json
from graftline.cli.releases import releases as releases_command
from graftline.cli.releases import rollback as rollback_command
from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import InputError
from graftline.ledger.checkpoint import make_checkpoint, remember
from graftline.ledger.entries import Fact
from graftline.ledger.log import Ledger, read_chain
from graftline.releases.catalogue import Release, champion, list_releases, resolve
from graftline.releases.fetching import fetch
from graftline.releases.layout import read_manifest
from graftline.releases.promotion import rollback
from graftline.releases.publishing import Publication, Receipt, ReleaseDraft, open_publication, publish
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import make_private, read_signer
from graftline.signing.model import sign_model
from graftline.store import Store
from graftline.store.opening import open_store

__all__ = ["moto_endpoint", "moto_url", "real_url", "store_url"]
RACERS = Path(__file__).parent / "store" / "racers.py"


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory store, for tests that change its files."""
    return tmp_path / "store"


@pytest.fixture
def draft(tmp_path: Path) -> ReleaseDraft:
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    (files / "README.md").write_text("# digits\n")
    by_name = {path.name: path for path in files.iterdir()}
    return ReleaseDraft("digits", by_name, {"model": b"{}"}, {"accuracy": 0.97})


def measured_against(draft: ReleaseDraft, champion: Release | None) -> ReleaseDraft:
    """Return the draft as evaluate and publish make it when `champion` is the champion."""
    named = None if champion is None else {"version": champion.version, "digest": champion.digest}
    return replace(draft, compared_with=named)


def publish_next(store: Store, draft: ReleaseDraft, identity: str) -> Receipt:
    """Publish, compared with the champion as it is."""
    return publish(store, measured_against(draft, champion(store, draft.task)), Publication(identity))


def publish_many(store: Store, draft: ReleaseDraft, count: int) -> None:
    for number in range(count):
        publish_next(store, draft, f"publication-{number}")


def promotions(store: Store) -> list[int]:
    return [entry.version for entry in read_chain(store).entries if entry.event == "promote"]


def test_a_release_is_listed_resolved_and_fetched(store: Store, draft: ReleaseDraft) -> None:
    assert champion(store, "digits") is None
    receipt = publish(store, draft, Publication("one"))
    assert (receipt.release.version, receipt.promoted, receipt.previous_champion) == (1, True, None)
    assert list_releases(store) == list_releases(store, "digits") == [receipt.release]
    for reference in ("digits", "digits@champion", "digits@1"):
        assert resolve(store, reference) == receipt.release
    assert receipt.release.aliases == ("champion",)
    assert receipt.release.path == f"{store.url}/releases/digits/1"
    folder = fetch(store, receipt.release)
    for name, path in draft.files.items():
        assert (folder / name).read_bytes() == path.read_bytes()
    assert (folder / "records" / "model.json").read_bytes() == b"{}"
    assert len(store.list("records/")) == 1


def test_the_same_publication_releases_once(store: Store, draft: ReleaseDraft) -> None:
    first = publish(store, draft, Publication("one"))
    publish_next(store, draft, "two")
    again = publish(store, draft, Publication("one"))
    assert again.release.manifest == first.release.manifest
    assert not again.promoted
    assert [release.version for release in list_releases(store)] == [1, 2]
    assert [entry.event for entry in read_chain(store).entries] == ["key", *["release", "promote"] * 2]


def test_releases_of_the_same_bits_have_equal_digests(store: Store, draft: ReleaseDraft, tmp_path: Path) -> None:
    one = publish(store, draft, Publication("one")).release
    records = ReleaseDraft(draft.task, draft.files, {"model": b'{"commit": "another"}'}, draft.metrics)
    two = publish(store, records, Publication("two")).release
    assert one.digest == two.digest
    assert one.manifest != two.manifest
    (tmp_path / "files" / "README.md").write_text("# other\n")
    assert publish(store, replace(draft), Publication("three")).release.digest != one.digest


PUBLISHERS = {"directory": 32, "moto": 12, "real": 32}
"""moto serves one request at a time, so that fewer are as many at once as it can take."""


def test_many_publishers_at_once_make_as_many_versions_and_one_of_them_is_champion(
    store_url: str, draft: ReleaseDraft, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    publishers = PUBLISHERS[request.node.callspec.params["store_url"]]
    done = subprocess.run(
        [sys.executable, str(RACERS), "publish", store_url, str(publishers), str(tmp_path / "files")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    receipts = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(version for version, _ in receipts) == list(range(1, publishers + 1))
    (promoted,) = [version for version, promoted in receipts if promoted]
    store = open_store(store_url)
    releases = list_releases(store, "digits")
    assert [release.version for release in releases] == list(range(1, publishers + 1))
    assert [release.version for release in releases if release.aliases] == [promoted]
    entries = read_chain(store).entries
    assert sorted(e.version for e in entries if e.event == "release") == list(range(1, publishers + 1))
    assert len(entries) == publishers + 2, "the key, the releases, one promotion"
    assert promotions(store) == [promoted]
    fetch(store, resolve(store, "digits"))


def test_a_killed_try_is_continued_and_other_content_is_a_new_publication(
    draft: ReleaseDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAFTLINE_RUN", raising=False)
    first = open_publication(tmp_path / "work", draft)
    again = open_publication(tmp_path / "work", draft)
    assert (first.fresh, again.fresh, first.id) == (True, False, again.id)
    (tmp_path / "files" / "README.md").write_text("# other\n")
    assert open_publication(tmp_path / "work", replace(draft)).id != first.id
    monkeypatch.setenv("GRAFTLINE_RUN", "run-7")
    elsewhere = open_publication(tmp_path / "elsewhere", draft)
    assert elsewhere == open_publication(tmp_path / "a third machine", draft)
    assert elsewhere.id.startswith("run-7-") and not elsewhere.fresh


def test_a_run_key_used_for_other_content_is_refused(store: Store, draft: ReleaseDraft, tmp_path: Path) -> None:
    publish(store, draft, Publication("run-7"))
    (tmp_path / "files" / "README.md").write_text("# other\n")
    with pytest.raises(InputError, match="publication run-7: it claimed digits@1 for other content"):
        publish(store, replace(draft), Publication("run-7"))
    assert len(list_releases(store)) == 1


def test_rollback_is_recorded_and_deletes_nothing(store: Store, draft: ReleaseDraft) -> None:
    publish_many(store, draft, 3)
    before = set(store.list("releases/"))
    release, moved = rollback(store, "digits", 1)
    assert (release.version, release.aliases, moved) == (1, ("champion",), True)
    assert resolve(store, "digits").version == 1
    assert read_chain(store).entries[-1].event == "rollback"
    assert set(store.list("releases/")) == before
    entries = len(read_chain(store).entries)
    assert rollback(store, "digits", 1)[1] is False
    assert len(read_chain(store).entries) == entries


def test_a_publish_after_a_rollback_promotes_again_but_its_retry_does_not(store: Store, draft: ReleaseDraft) -> None:
    publish_many(store, draft, 2)
    rollback(store, "digits", 1)
    later = measured_against(draft, champion(store, "digits"))
    receipt = publish(store, later, Publication("later"))
    assert receipt.promoted
    assert receipt.previous_champion is not None
    assert receipt.previous_champion.version == 1
    rollback(store, "digits", 1)
    assert not publish(store, later, Publication("later")).promoted
    assert resolve(store, "digits").version == 1


def test_an_alias_that_lags_misleads_nobody_and_is_repaired_by_the_next_writer(
    store: Store, draft: ReleaseDraft
) -> None:
    publish_many(store, draft, 2)
    entered = resolve(store, "digits@1")
    # A rollback that was killed after its entry and before the alias.
    Ledger(store).append(lambda _: Fact("rollback", "digits", 1, entered.manifest, "killed", "champion"))
    behind = store.get("aliases/digits/champion.json").data
    assert json.loads(behind)["version"] == 2
    assert resolve(store, "digits").version == 1
    assert [release.aliases for release in list_releases(store)] == [("champion",), ()]
    assert rollback(store, "digits", 1)[1] is False
    assert json.loads(store.get("aliases/digits/champion.json").data) == {"version": 1, "entry": 6}


def test_a_model_replaces_only_the_champion_that_it_was_compared_with(store: Store, draft: ReleaseDraft) -> None:
    one = publish(store, draft, Publication("one")).release
    slow, better = measured_against(draft, one), measured_against(draft, one)
    two = publish(store, better, Publication("better")).release
    receipt = publish(store, slow, Publication("slow"))
    assert (receipt.release.version, receipt.promoted, receipt.current) == (3, False, two)
    assert resolve(store, "digits") == two
    assert publish(store, slow, Publication("slow")) == receipt, "trying again does not help"
    assert publish(store, measured_against(draft, two), Publication("compared")).promoted
    manifest = json.loads(store.get("releases/digits/4/manifest.json").data)
    assert manifest["compared_with"] == manifest["champion_when_published"]
    assert promotions(store) == [1, 2, 4]
    assert [release.version for release in list_releases(store)] == [1, 2, 3, 4]


def test_a_rollback_between_evaluation_and_publication_is_respected(store: Store, draft: ReleaseDraft) -> None:
    publish_many(store, draft, 2)
    slow = measured_against(draft, champion(store, "digits"))
    rollback(store, "digits", 1)
    receipt = publish(store, slow, Publication("slow"))
    assert (receipt.release.version, receipt.promoted) == (3, False)
    assert resolve(store, "digits").version == 1
    assert promotions(store) == [1, 2]


def test_a_champion_of_the_same_version_but_other_content_is_another(
    store: Store, draft: ReleaseDraft, tmp_path: Path
) -> None:
    elsewhere = open_store(str(tmp_path / "elsewhere"))
    theirs = publish(elsewhere, draft, Publication("theirs")).release
    (tmp_path / "files" / "README.md").write_text("# other\n")
    publish(store, replace(draft), Publication("ours"))
    assert not publish(store, measured_against(draft, theirs), Publication("two")).promoted
    assert resolve(store, "digits").version == 1


def test_a_model_that_was_compared_with_a_champion_of_another_store_is_not_promoted(
    store: Store, draft: ReleaseDraft, tmp_path: Path
) -> None:
    theirs = publish(open_store(str(tmp_path / "elsewhere")), draft, Publication("theirs")).release
    receipt = publish(store, measured_against(draft, theirs), Publication("one"))
    assert (receipt.release.version, receipt.promoted, receipt.current) == (1, False, None)
    assert champion(store, "digits") is None


def test_another_alias_goes_to_the_highest_version_whatever_was_compared(store: Store, draft: ReleaseDraft) -> None:
    candidate = replace(draft, alias="candidate")
    assert [publish(store, candidate, Publication(name)).promoted for name in "abc"] == [True] * 3
    assert resolve(store, "digits@candidate").version == 3


def test_the_files_are_hashed_once_and_the_upload_is_what_was_hashed(
    store: Store, draft: ReleaseDraft, tmp_path: Path
) -> None:
    publication = open_publication(tmp_path / "work", draft)
    (tmp_path / "files" / "README.md").write_text("# changed after it was hashed\n")
    release = publish(store, draft, publication).release
    with pytest.raises(InputError, match=r"README.md: sha256 \w{64}; expected \w{64}, by the manifest"):
        fetch(store, release)


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        ("digits@9", "no version 9; expected one of the versions 1, 2 .champion."),
        ("digits@best", "no alias 'best'; expected one of the versions 1, 2 .champion."),
        ("letters", "task 'letters': no release in .*, which has digits; make one with `graftline run"),
        ("digits@../1", "expected task@version or task@alias"),
        ("../digits", "expected a name of lower-case letters"),
        ("digits@", "expected task@version or task@alias"),
    ],
)
def test_an_unknown_release_lists_what_there_is(folder: Path, draft: ReleaseDraft, reference: str, line: str) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    with pytest.raises(InputError, match=line):
        resolve(store, reference)


def test_rollback_to_an_unknown_version_lists_what_exists(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    with pytest.raises(InputError, match="no version 7; expected one of the versions 1, 2"):
        rollback(store, "digits", 7)
    assert "rollback" not in {entry.event for entry in read_chain(store).entries}


def test_a_version_without_a_manifest_does_not_exist(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 1)
    store.put_if_absent("releases/digits/2/claim.json", b'{"publication": "killed", "payload": ""}')
    store.put_if_absent("releases/digits/2/model.safetensors", b"half of it")
    assert [release.version for release in list_releases(store)] == [1]
    with pytest.raises(InputError, match="no version 2"):
        resolve(store, "digits@2")
    assert publish(store, draft, Publication("next")).release.version == 3


def damage(folder: Path) -> Iterator[tuple[str, object]]:
    release = folder / "releases" / "digits" / "1"
    flipped = bytearray((release / "model.safetensors").read_bytes())
    flipped[1000] ^= 1
    yield "model.safetensors: sha256", lambda: (release / "model.safetensors").write_bytes(flipped)
    yield "README.md: missing", lambda: (release / "README.md").unlink()
    yield "extra.txt: there; expected no such file", lambda: (release / "extra.txt").write_bytes(b"")
    yield ".hidden: there; expected no such file", lambda: (release / ".hidden").write_bytes(b"")
    yield "record.json: there; expected no such file", lambda: (release / "record.json").write_bytes(b"{}")
    yield "model.json: sha256", lambda: (release / "records" / "model.json").write_bytes(b"[]")


@pytest.mark.parametrize("case", range(6))
def test_a_changed_release_is_refused_with_the_file_and_both_digests(
    folder: Path, draft: ReleaseDraft, case: int
) -> None:
    store = open_store(str(folder))
    release = publish(store, draft, Publication("one")).release
    line, act = list(damage(folder))[case]
    fetch(store, release)
    act()  # type: ignore[operator]
    with pytest.raises(InputError, match=line):
        fetch(store, release)


def test_a_flipped_bit_in_an_s3_release_and_in_its_cache(
    moto_url: str, draft: ReleaseDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    store = open_store(moto_url)
    release = publish(store, draft, Publication("one")).release
    cached = fetch(store, release) / "README.md"
    cached.write_text("# changed in the cache\n")
    assert (fetch(store, release) / "README.md").read_text() == "# digits\n"
    bucket, _, prefix = moto_url.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/releases/digits/1/README.md", Body=b"other")
    cached.unlink()
    with pytest.raises(InputError, match=r"README.md: sha256 \w{64}; expected \w{64}, by the manifest"):
        fetch(store, release)
    assert list((tmp_path / "cache" / "releases").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"content": "0" * 64}, "it contradicts itself"),
        ({"version": 2}, "it contradicts itself"),
        ({"files": [{"path": "../../outside", "size": 0, "sha256": "0" * 64}]}, "not a key"),
        ({"files": 7}, "not a manifest"),
        ({"files": [{"path": "x", "size": "0", "sha256": "y"}]}, "not a manifest"),
    ],
)
def test_a_changed_manifest_is_refused(folder: Path, draft: ReleaseDraft, change: dict[str, object], line: str) -> None:
    store = open_store(str(folder))
    release = publish(store, draft, Publication("one")).release
    path = folder / "releases" / "digits" / "1" / "manifest.json"
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | change))
    for read in (lambda: fetch(store, release), lambda: list_releases(store), lambda: resolve(store, "digits")):
        with pytest.raises(InputError, match="expected " + release.manifest):
            read()
    with pytest.raises(InputError, match=line):
        read_manifest(store, "digits", 1)


# What somebody can write who has the store and no key


def planted_entry(store: Store, **values: object) -> bytes:
    """Return a next entry that says what the last one says but for `values`, with that one's signature."""
    last = read_chain(store).entries[-1]
    previous, root = sha256_bytes(last.data), Ledger(store).tree.root().hex()
    return replace(last, sequence=last.sequence + 1, previous=previous, root=root, **values).data  # type: ignore[arg-type]


def test_an_entry_that_nobody_signed_makes_no_champion(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    one = resolve(store, "digits@1")
    store.put_if_absent("ledger/00000006.json", planted_entry(store, version=1, digest=one.manifest))
    (folder / "aliases" / "digits" / "champion.json").write_bytes(b'{"entry":6,"version":1}')
    for read in (lambda: resolve(store, "digits"), lambda: champion(store, "digits"), lambda: list_releases(store)):
        with pytest.raises(InputError, match=r"00000006.json: its signature is not one of key"):
            read()


def test_a_manifest_that_is_not_the_entered_one_is_not_read(folder: Path, draft: ReleaseDraft, tmp_path: Path) -> None:
    """It agrees with itself and with its files; only the ledger knows that it was another."""
    store, elsewhere = open_store(str(folder)), open_store(str(tmp_path / "elsewhere"))
    entered = publish(store, draft, Publication("one")).release.manifest
    (tmp_path / "files" / "README.md").write_text("# theirs\n")
    theirs = publish(elsewhere, replace(draft), Publication("one")).release
    shutil.rmtree(folder / "releases")
    shutil.copytree(tmp_path / "elsewhere" / "releases", folder / "releases")
    for read in (
        lambda: resolve(store, "digits"),
        lambda: resolve(store, "digits@1"),
        lambda: list_releases(store),
        lambda: publish(store, measured_against(draft, theirs), Publication("two")),
    ):
        with pytest.raises(InputError, match=f"sha256 {theirs.manifest}; expected {entered}"):
            read()


def test_what_the_ledger_has_no_entry_of_is_not_released(folder: Path, draft: ReleaseDraft) -> None:
    """A publisher that was killed before its entry leaves the same, and completes it when it runs again."""
    store = open_store(str(folder))
    publish_many(store, draft, 1)
    publish(store, draft, Publication("killed"))
    for path in sorted((folder / "ledger").iterdir())[3:]:
        path.unlink()
    assert [release.version for release in list_releases(store)] == [1]
    with pytest.raises(InputError, match=r"version 2 is not in the ledger.*; expected one of the versions 1 "):
        resolve(store, "digits@2")
    with pytest.raises(InputError, match="version 2 is not in the ledger"):
        rollback(store, "digits", 2)
    assert publish(store, draft, Publication("killed")).release.version == 2
    assert [release.version for release in list_releases(store)] == [1, 2]


def test_an_alias_to_other_bits_than_were_released_is_refused(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    other = resolve(store, "digits@1").manifest
    Ledger(store).append(lambda _: Fact("promote", "digits", 2, other, "swapped", "champion"))
    with pytest.raises(InputError, match=rf"00000006.json: champion at manifest {other}; expected \w+, released as"):
        resolve(store, "digits")


def test_a_store_without_its_alias_objects_is_read_by_its_ledger(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    (folder / "aliases" / "digits" / "champion.json").unlink()
    assert resolve(store, "digits").version == 2


def test_a_reader_who_remembers_the_ledger_refuses_one_that_was_cut_or_made_anew(
    folder: Path, draft: ReleaseDraft, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    remember(store.identity, make_checkpoint(Ledger(store)))
    resolve(store, "digits")
    (folder / "ledger" / "00000005.json").unlink()
    with pytest.raises(InputError, match=r"4 entries; the rest was cut off.*delete .*/seen/"):
        resolve(store, "digits")
    shutil.rmtree(folder)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "theirs"))
    publish_many(store, draft, 3)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    with pytest.raises(InputError, match="another ledger"):
        list_releases(store)


def planted(store: Store, draft: ReleaseDraft, **values: object) -> None:
    """Put a manifest under the claim of publication "one", which names `values`, and end there: no entry of it."""
    publish(store, draft, Publication("one"))
    folder = Path(store.url)
    path = folder / "releases" / "digits" / "1" / "manifest.json"
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | values))
    shutil.rmtree(folder / "ledger")
    shutil.rmtree(folder / "aliases")


def test_a_manifest_that_another_wrote_is_not_entered(folder: Path, draft: ReleaseDraft) -> None:
    """Who sees the claim knows the publication's id, and is quicker."""
    store = open_store(str(folder))
    backdoor = FileDigest("hook.bin", 3, sha256_bytes(b"own"))
    files = sorted([*draft.listing, backdoor])
    listed = [file.as_dict() for file in sorted([*files, *draft.record_listing()])]
    kept = canonical_json({"publication": "one", "payload": digest_files(draft.listing + draft.record_listing())})
    store.put_if_absent("releases/digits/1/claim.json", kept)
    store.put_if_absent("releases/digits/1/hook.bin", b"own")
    forged = {
        "task": "digits", "version": 1, "created": "2026-01-01T00:00:00Z", "publication": "one",
        "content": digest_files(files), "files": listed, "records": {}, "locks": [], "metrics": {"accuracy": 1.0},
        "compared_with": None, "champion_when_published": None,
    }  # fmt: skip
    store.put_if_absent("releases/digits/1/manifest.json", canonical_json(forged))
    with pytest.raises(InputError, match=r"model.sig: missing, and the manifest is there"):
        publish(store, draft, Publication("one"))
    signature = sign_model("digits@1", draft.listing + draft.record_listing(), load_keyring().signer())
    store.put_if_absent("releases/digits/1/model.sig", signature)  # as the try that was overtaken stored it
    with pytest.raises(InputError, match=r"manifest.json: other content, files, metrics, records; expected what one"):
        publish(store, draft, Publication("one"))
    assert read_chain(store).entries == []


@pytest.mark.parametrize(
    "values",
    [
        {"metrics": {"accuracy": 0.99}},
        {"compared_with": {"version": 1, "digest": "0" * 64}},
        {"locks": ["0" * 64]},
        {"records": {"model": "0" * 64}},
        {"records": {}},
        {"note": "more"},
    ],
)
def test_each_thing_that_a_manifest_says_must_be_the_drafts(
    folder: Path, draft: ReleaseDraft, values: dict[str, object]
) -> None:
    store = open_store(str(folder))
    planted(store, draft, **values)
    with pytest.raises(InputError, match=f"manifest.json: other {next(iter(values))}; expected what one publishes"):
        publish(store, draft, Publication("one"))
    assert read_chain(store).entries == []


def test_a_manifest_with_another_ones_model_signature_is_not_entered(
    folder: Path, draft: ReleaseDraft, tmp_path: Path
) -> None:
    store = open_store(str(folder))
    (tmp_path / "another.key").write_bytes(make_private()[0])
    theirs = sign_model("digits@1", draft.listing + draft.record_listing(), read_signer(tmp_path / "another.key"))
    listed = sorted(
        [*draft.listing, *draft.record_listing(), FileDigest("model.sig", len(theirs), sha256_bytes(theirs))]
    )
    planted(store, draft, files=[file.as_dict() for file in listed])
    (folder / "releases" / "digits" / "1" / "model.sig").write_bytes(theirs)
    with pytest.raises(InputError, match=r"model.sig: not signed by a key that is trusted here"):
        publish(store, draft, Publication("one"))
    assert read_chain(store).entries == []


def test_a_try_that_was_killed_before_its_entry_is_completed(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    planted(store, draft)
    assert publish(store, draft, Publication("one")).promoted


def test_an_alias_that_the_ledger_does_not_support_is_refused(folder: Path, draft: ReleaseDraft) -> None:
    store = open_store(str(folder))
    publish_many(store, draft, 2)
    (folder / "aliases" / "digits" / "champion.json").write_bytes(b'{"entry":5,"version":1}')
    with pytest.raises(InputError, match="version 1 by entry 5; expected what that entry says"):
        resolve(store, "digits")
    assert rollback(store, "digits", 2)[1] is False
    assert resolve(store, "digits").version == 2


def test_the_command_lists_releases_as_json_oldest_first(
    folder: Path, draft: ReleaseDraft, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_many(open_store(str(folder)), draft, 2)
    releases_command(None, as_json=True, store=str(folder))
    columns = {"task", "version", "path", "digest", "created", "aliases"}
    listed = json.loads(capsys.readouterr().out)
    assert [set(release) for release in listed] == [columns] * 2
    assert [(release["version"], release["aliases"]) for release in listed] == [(1, []), (2, ["champion"])]
    assert Path(listed[0]["path"], "model.safetensors").is_file()
    releases_command("digits", as_json=False, store=str(folder))
    table = capsys.readouterr().out
    assert "champion" in table
    assert listed[0]["digest"][:12] in table


def test_the_command_rolls_back_and_says_if_there_is_nothing_to_do(
    folder: Path, draft: ReleaseDraft, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_many(open_store(str(folder)), draft, 2)
    rollback_command("digits", to=1, store=str(folder), alias="champion")
    rollback_command("digits", to=1, store=str(folder), alias="champion")
    assert capsys.readouterr().out == (
        "digits@champion is digits@1 now\ndigits@champion is digits@1 already; nothing was changed\n"
    )
