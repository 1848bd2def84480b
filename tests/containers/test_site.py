"""A site of federated rounds as infra/overlays/site starts it: the manifest's own command, user and mounts."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import parts
import pyarrow.parquet as pq
import small

from graftline.engines.containers import USER
from graftline.environment import ROOT
from graftline.federated.orders import newest_orders, runs_of
from graftline.images import Images
from graftline.signing.keyring import add_trusted, load_keyring, make_first
from graftline.store.opening import open_store
from graftline.yamlfile import parse_yaml

MANIFEST = ROOT / "infra/overlays/site/site.yaml"


def test_a_jobs_container_answers_what_a_coordinator_asks(images: Images, tmp_path: Path) -> None:
    dataset, trunk = small.dataset(tmp_path), small.trunk(tmp_path)
    folder, keys = tmp_path / "volume", tmp_path / "keys"
    (tmp_path / "far.pem").write_text(next(iter(make_first(keys).values())).public.pem)
    add_trusted(keys, load_keyring().signer().public)
    parts.write_site(folder, pq.read_table(dataset.parent / "raw" / "images.parquet"))
    sites = parts.write_sites(tmp_path, {}, far={"store": "theirs", "key": "far.pem"})
    task = parts.coordinator(tmp_path / "c", dataset, trunk, rounds=1, late=120)
    for place in (Path(task.store), Path(sites[0].store), folder, keys):
        place.mkdir(exist_ok=True)
        subprocess.run(["chown", "-R", str(USER), place], check=True)
    looks = [job(images.train, folder, keys, task.store, sites[0].store)]
    assert looks[0].returncode == 0, "nothing is asked yet"
    over, store = threading.Event(), open_store(task.store)

    def look() -> None:  # as the schedule does, but when an order is there
        while len(looks) == 1 and not over.wait(0.2):
            runs = runs_of(store, "digits")
            if any(int(name[:4]) == len(looks) for run in runs for name in newest_orders(store, "digits", run)):
                looks.append(job(images.train, folder, keys, task.store, sites[0].store))

    cron = threading.Thread(target=look)
    cron.start()
    try:
        run = parts.federate(task, sites, say=parts.quiet)
    finally:
        over.set()
        cron.join()
    assert [done.returncode for done in looks] == [0, 0], looks[-1].stderr[-2000:]
    assert parts.model_digest(run)
    assert not list((folder / "federated").glob("*/000*")), "nothing of a round is left in the volume"


def job(image: str, folder: Path, keys: Path, coordinator: str, store: str) -> subprocess.CompletedProcess[str]:
    """Run one job of the manifest: all that it says of its container, with folders for both stores."""
    (manifest,) = [
        one for one in map(_parsed, re.split(r"(?m)^---$", MANIFEST.read_text())) if one["kind"] == "CronJob"
    ]
    pod = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = {"TASK": "digits", "COORDINATOR": coordinator, "STORE": store}
    settings |= {one["name"]: one["value"] for one in container["env"]}
    places = {"site": folder, "signing": keys}
    mounts = [f"--volume={coordinator}:{coordinator}:ro", f"--volume={store}:{store}"]
    for mount in container["volumeMounts"]:
        if mount["name"] in places:
            mounts.append(
                f"--volume={places[mount['name']]}:{mount['mountPath']}{':ro' * mount.get('readOnly', False)}"
            )
    command = [re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], word) for word in container["args"]]
    user = pod["securityContext"]["runAsUser"]
    return subprocess.run(
        [
            "docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
            f"--user={user}:{user}", *mounts, *(f"--env={name}={value}" for name, value in settings.items()),
            image, *container["command"], *command,
        ], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def _parsed(text: str) -> Any:
    return parse_yaml(text, where=MANIFEST)
