"""Small detectors of the DETR family, as transformers' own classes write them, untrained; each made once a session.

No published weights: what is shown is that such a folder is taken, learns, and opens again. The scenes are those of
small_scenes.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import small_scenes
import torch
from session import once

from graftline.trunks import rootstock

MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
NAMES = ("cat", "7", "dog", "person", "car")
"""The classes of a checkpoint; one of them is one of the scenes', and has another number there."""
QUERIES = 12
KINDS = ("conditional_detr", "deformable_detr", "detr", "rt_detr", "rt_detr_v2", "table-transformer", "yolos")
SIZES: dict[str, dict[str, int]] = {
    "detr": {"shortest_edge": 64, "longest_edge": 96},
    "yolos": {"height": small_scenes.SIDE, "width": small_scenes.SIDE},
}
"""What a checkpoint's processor makes of a picture, of those that are not in it 64 by 64."""


def network(kind: str, **more: Any) -> Any:
    """Return an untrained model of a kind, drawn from seed 0."""
    import transformers as hf

    torch.manual_seed(0)
    if kind == "yolos":
        shape: dict[str, Any] = {"image_size": [64, 64], "patch_size": 16, "num_detection_tokens": QUERIES}
        shape |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    else:
        shape = {"d_model": 32, "num_queries": QUERIES, "encoder_layers": 1, "decoder_layers": 2}
        for part in ("encoder", "decoder"):
            shape |= {f"{part}_attention_heads": 2, f"{part}_ffn_dim": 64}
        real_time = kind.startswith("rt_detr")
        if real_time:
            shape |= {"encoder_in_channels": [16, 16, 32], "encoder_hidden_dim": 32, "decoder_in_channels": [32] * 3}
        elif kind == "deformable_detr":
            shape["num_feature_levels"] = 3
        if kind in ("conditional_detr", "table-transformer"):  # the others say nothing of it, as DETR's own, or have it
            shape["auxiliary_loss"] = True
        stages = ["stage2", "stage3", "stage4"] if real_time or kind == "deformable_detr" else ["stage4"]
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1] * 4, "layer_type": "basic"}
        backbone: Any = hf.RTDetrResNetConfig if real_time else hf.ResNetConfig
        shape["backbone_config"] = backbone(**sizes, out_features=stages)
    config = hf.AutoConfig.for_model(kind, **shape | more)
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: number for number, name in enumerate(NAMES)}
    return hf.AutoModelForObjectDetection.from_config(config)


def processor(kind: str) -> dict[str, Any]:
    """Return what a checkpoint's preprocessor_config.json says."""
    from graftline.trunks.detector.trunk import PROCESSORS

    size = SIZES.get(kind, {"height": 64, "width": 64})
    return {"image_processor_type": PROCESSORS[kind], "size": size, "image_mean": MEAN, "image_std": DEVIATION}


@once
def checkpoint(home: Path, kind: str) -> Path:
    """Return the folder of a checkpoint of a kind."""
    folder = home / "detectors" / kind
    network(kind).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor(kind)))
    return folder


def params(folder: Path, root: Path) -> dict[str, Any]:
    """Return the parameters of all stages on the checkpoint in `folder`, with `root` as the repository."""
    path = folder.relative_to(root).as_posix()
    return {
        "pretrain": {"trunk": {"name": "detector_rootstock", "path": path}, "epochs": 0},
        "finetune": {"head": {"name": "detection"}, "epochs": 2, "min_steps": 5, "batch": 16, "learning_rate": 0.001},
        "evaluate": {"lift_labels": [20], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 4},
    }


def pretrain(folder: Path, root: Path, out: Path, dataset: Path) -> int:
    """Run pretrain on the checkpoint in `folder`; return the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rootstock, "ROOT", root)
        return small.run("pretrain", params(folder, root), in_dataset=dataset, out_trunk=out)


@once
def trunk(home: Path, kind: str) -> Path:
    """Return the trunk that pretrain makes of a checkpoint."""
    out = home / "detecting" / kind / "trunk"
    out.parent.mkdir(parents=True, exist_ok=True)
    assert pretrain(checkpoint(home, kind), home, out, small_scenes.dataset(home)) == 0
    return out


@once
def released(home: Path, kind: str) -> Path:
    """Return the folder that holds trunk, model, evaluation, release, and the store with digits@1."""
    made, data = trunk(home, kind), small_scenes.dataset(home)
    return small.release_of(made, data, params(checkpoint(home, kind), home))
