"""What an erasure will touch. The plan is stored before anything is removed: one that was killed goes on by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from graftline.audit.erase import dvc_content
from graftline.audit.erase.copies import plan_copies, plan_lineage
from graftline.audit.erase.raw import Found, Target, can_rewrite, find_files, find_rows, is_whole
from graftline.canonical import canonical_json
from graftline.digests import sha256_bytes, sha256_file
from graftline.errors import InputError
from graftline.index.opening import open_index
from graftline.raw.media import is_media, manifest_of
from graftline.rows.blocklist import check_all, check_key
from graftline.rows.erasing import digests_at, shards_with
from graftline.rows.finding import find
from graftline.rows.segments import Kind
from graftline.rows.shards import DIGEST_BYTES
from graftline.store import Store
from graftline.times import utc_now

if TYPE_CHECKING:
    from graftline.audit.erase.dvc_content import Place
    from graftline.values.contract import Contract


@dataclass
class ErasurePlan:
    """Everything that an erasure removes or marks; no value of a row and no id of a person is in it."""

    id: str
    kind: str
    """`row` or `subject`."""
    target: list[str]
    """In hex: the row's digest (of a row without a label each that it may have), or the person's keyed hash."""
    at: str = field(default_factory=utc_now)
    hits: list[dict[str, Any]] = field(default_factory=list)
    """Each place in the row index: task, dataset, row, split."""
    digests: list[str] = field(default_factory=list)
    """Of the rows, in hex."""
    entries: list[str] = field(default_factory=list)
    """The same as far as the row index holds it, 16 bytes, of rows that are in no raw data here any more too."""
    raw: list[dict[str, Any]] = field(default_factory=list)
    """Raw files with such rows: task, version (DVC's md5; None for the work tree), file, md5, sha256, rows."""
    objects: list[str] = field(default_factory=list)
    """DVC's md5 of each object to delete from the cache and the remote."""
    outputs: list[str] = field(default_factory=list)
    """Folders and files of the work tree to delete."""
    bundles: list[str] = field(default_factory=list)
    """Keys of the store to delete: what runs on a cluster handed over."""
    shards: dict[str, str] = field(default_factory=dict)
    """The sha256 of each shard of the row index with such rows, by its place."""
    datasets: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    """Content digests of trunks and models made from them."""
    releases: list[dict[str, Any]] = field(default_factory=list)
    """Task, version, manifest and aliases."""
    tasks: list[str] = field(default_factory=list)
    retrain: list[str] = field(default_factory=list)
    """Commands."""
    not_covered: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.hits or self.raw)


def plan_key(identity: str) -> str:
    return f"erased/plans/{identity}.json"


def receipt_key(identity: str) -> str:
    return f"erasures/{identity}.json"


def identity_of(store: Store, kind: str, target: list[str]) -> str:
    """Return the id of the erasure under way for this target, or of the next one."""
    stem = sha256_bytes(canonical_json([kind, target]))[:16]
    if plans := store.list(f"erased/plans/{stem}-"):
        return plans[-1].rpartition("/")[2].removesuffix(".json")
    return f"{stem}-{len(store.list(f'erasures/{stem}-')) + 1}"


def check_subjects_key(store: Store, contracts: Mapping[str, Contract], key: bytes) -> None:
    """Raise InputError if a list of the store's or of a contract's was made with another key."""
    check_all(store, key)
    for task, contract in contracts.items():
        check_key(contract.erased.as_blocklist(), key, f"data/{task}/expectations.yaml")


def make_plan(
    store: Store, root: Path, kind: str, target: list[str], wanted: Target, contracts: Mapping[str, Contract]
) -> ErasurePlan:
    """Return what erasing `wanted` touches. Nothing is changed.

    Args:
        root: the checkout whose data, outputs and DVC cache are looked at.
        contracts: of the tasks there.

    Raises:
        InputError: the key of the person's hash is not the one that persons were erased with before.
    """
    if wanted.subject is not None:
        check_subjects_key(store, contracts, wanted.key)
    plan = ErasurePlan(identity_of(store, kind, target), kind, target)
    digests = [bytes.fromhex(value) for value in target]
    index_kind: Kind = "rows" if kind == "row" else "subjects"
    hits = sorted({hit for digest in digests for hit in find(store, index_kind, digest)})
    plan.hits = [asdict(hit) for hit in hits]
    plan.entries = sorted(digest.hex() for digest in digests_at(store, hits)) if kind == "subject" else []
    with dvc_content.places(root) as found:
        for task, contract in contracts.items():
            _plan_raw(plan, root, task, contract, wanted, found)
        if kind == "row":
            plan.digests = sorted({*plan.digests, *(target if hits else [])})
        # Every key is looked at, for no ledger entry leads to the records of a run that was refused.
        with open_index(store, folders=(root / "outputs",), full=True) as index:
            records = plan_lineage(plan, index)
        plan_copies(plan, root, records, found)
    _plan_store(plan, store, {record.sha256 for record in records})
    _plan_rest(plan, contracts)
    return plan


def _plan_raw(plan: ErasurePlan, root: Path, task: str, contract: Contract, wanted: Target, found: list[Place]) -> None:
    """Look through the work tree's raw data and through every version that DVC still holds."""
    known: dict[str, tuple[Found, str]] = {}
    folder = root / "data" / task / "raw"
    if whole := is_whole(folder, contract.source):
        of_files = find_files(folder, contract, wanted)
        for name, rows in of_files.items():
            _note(plan, task, None, name, None, (rows, sha256_file(folder / name)))
        manifest = manifest_of(folder, contract.source)
        if of_files and manifest is not None and not can_rewrite(manifest, contract.source):
            _cannot(plan, task, manifest.name)
    for path in sorted(folder.iterdir()) if folder.is_dir() and not whole else []:
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir() or not can_rewrite(path, contract.source):
            _cannot(plan, task, path.name)
        else:
            rows = find_rows(path, contract, wanted)
            _note(plan, task, None, path.name, None, (rows, sha256_file(path) if rows.positions else ""))
    for version in dvc_content.raw_versions(root, task):
        files = dvc_content.files_of(found, version)
        if files is None:
            plan.not_covered.append(
                f"raw version {version} of {task}: neither the DVC cache nor the remote holds its listing"
            )
        if files and any(is_media(Path(name)) for name in files):
            _scan_folder(plan, task, version, files, contract, wanted, found)
            continue
        for name, oid in sorted((files or {}).items()):
            if oid not in known and not can_rewrite(Path(name), contract.source):
                _cannot(plan, task, name)
            elif oid not in known:
                _scan(plan, task, name, oid, contract, wanted, found, known)
            if oid in known:
                _note(plan, task, version, name, oid, known[oid])


def _scan_folder(
    plan: ErasurePlan,
    task: str,
    version: str,
    files: Mapping[str, str],
    contract: Contract,
    wanted: Target,
    found: list[Place],
) -> None:
    """Look for the rows in an old version of a folder whose rows are files of their own."""
    with TemporaryDirectory(prefix="graftline-erase-") as place:
        folder = Path(place)
        for name, oid in files.items():
            holder = next((one for one in found if one.has(oid)), None)
            if holder is None:
                plan.not_covered.append(
                    f"{name} (md5 {oid}) of a raw version of {task}: neither the DVC cache nor the remote holds it"
                )
                continue
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise InputError(f"raw version {version} of {task}", f"a file {name!r}", expected="names inside it")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            holder.read(oid, folder / name)
        if not is_whole(folder, contract.source):
            _cannot(plan, task, next(iter(files)))
            return
        try:
            rows, manifest = find_files(folder, contract, wanted), manifest_of(folder, contract.source)
        except InputError as error:
            reason = str(error.found)[:120]
            plan.not_covered.append(
                f"pictures of an old raw version of {task} ({version}): today's contract does not read it ({reason})"
            )
            return
        for name, of_file in rows.items():
            _note(plan, task, version, name, files[name], (of_file, sha256_file(folder / name)))
        if rows and manifest is not None and files[manifest.name] not in plan.objects:
            plan.objects.append(files[manifest.name])


def _cannot(plan: ErasurePlan, task: str, name: str) -> None:
    """Note a raw file that no row is taken out of."""
    note = (
        f"raw data {name.partition('/')[0]} of {task}: rows are taken out of Parquet, CSV and JSON Lines with a line "
        "a row only; take them out where it comes from. They do not come back into a dataset: they are blocked"
    )
    plan.not_covered += [] if note in plan.not_covered else [note]


def _scan(
    plan: ErasurePlan,
    task: str,
    name: str,
    oid: str,
    contract: Contract,
    wanted: Target,
    found: list[Place],
    known: dict[str, tuple[Found, str]],
) -> None:
    """Look for the rows in a file of an old version; note its sha256 too."""
    place = next((place for place in found if place.has(oid)), None)
    if place is None:
        missing = f"{name} (md5 {oid}) of a raw version of {task}: neither the DVC cache nor the remote holds it"
        plan.not_covered += [] if missing in plan.not_covered else [missing]
        return
    with TemporaryDirectory(prefix="graftline-erase-") as folder:
        copy = Path(folder) / f"raw{Path(name).suffix}"
        place.read(oid, copy)
        try:
            known[oid] = find_rows(copy, contract, wanted), sha256_file(copy)
        except InputError as error:
            reason = str(error.found)[:120]
            plan.not_covered.append(
                f"{name} (md5 {oid}) of an old raw version of {task}: today's contract does not read it ({reason})"
            )


def _note(
    plan: ErasurePlan, task: str, version: str | None, name: str, oid: str | None, scanned: tuple[Found, str]
) -> None:
    found, sha256 = scanned
    if found.positions:
        plan.raw.append(
            {"task": task, "version": version, "file": name, "md5": oid, "sha256": sha256, "rows": len(found.positions)}
        )
        plan.digests = sorted({*plan.digests, *found.digests})
        if oid is not None and oid not in plan.objects:
            plan.objects.append(oid)


def _plan_store(plan: ErasurePlan, store: Store, records: set[str]) -> None:
    keys = store.list("handover/")
    plan.bundles = [key for key in keys if any(sha in key for sha in records)]
    for kind, values in index_targets(plan):
        for value in values:
            plan.shards |= shards_with(store, kind, bytes.fromhex(value))


def index_targets(plan: ErasurePlan) -> list[tuple[Kind, list[str]]]:
    """Return what is taken out of the row index, in hex."""
    known = {digest[: 2 * DIGEST_BYTES] for digest in plan.digests}
    return [("rows", sorted(known | set(plan.entries))), ("subjects", plan.target if plan.kind == "subject" else [])]


def _plan_rest(plan: ErasurePlan, contracts: Mapping[str, Contract]) -> None:
    """Note what to train again, and what no command here can reach."""
    touched = {hit["task"] for hit in plan.hits} | {file["task"] for file in plan.raw}
    plan.tasks = sorted(touched)
    later = {release["task"] for release in plan.releases} - touched
    plan.retrain = [f"graftline run {task}" for task in [*sorted(touched), *sorted(later)]]
    plan.not_covered += [
        f"task {task} has no folder in this checkout: run this command in its repository"
        for task in sorted(touched - set(contracts))
    ]
    if plan.releases:
        plan.not_covered.append(
            "weights of the releases named here were made with the erased rows, and their pictures of mistakes may "
            "show one; to withdraw a release, roll its aliases back and delete its folder in the store"
        )
    plan.not_covered.append(
        "outputs in the DVC remote that neither the cache here nor a dvc.lock here or in git's history names"
    )
    plan.not_covered.append(
        "other clones, other machines' DVC caches, other DVC remotes, backups, older versions in a bucket with "
        "versioning"
    )
