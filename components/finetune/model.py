"""A fine-tuned model as a folder: config.json and model.safetensors, in a model output or a release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from graftline.canonical import read_json
from graftline.components.finetune.heads import image_classification
from graftline.components.finetune.heads.image_classification import ImageClassifier
from graftline.dataset import Schema
from graftline.durable import write_new
from graftline.errors import InputError
from graftline.trunks import load_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(model: ImageClassifier, schema: Schema, folder: Path) -> None:
    """Write the model's weights and config into `folder`."""
    from safetensors.torch import save

    write_new(folder / WEIGHTS, save(model.state_dict()))
    config = image_classification.config(model, schema)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_model(folder: Path) -> ImageClassifier:
    """Return the model in `folder`, ready to predict.

    Raises:
        InputError: the config is not one or names an unknown head, or the weights do not fit it.
    """
    config = read_json(folder / CONFIG)
    try:
        if config["head"] != "image_classification":
            raise InputError(folder / CONFIG, f"head {config['head']!r}", expected="image_classification")
        model = image_classification.build(config)
    except (KeyError, TypeError, ValueError) as error:
        found = f"not a model's config ({error!r})"
        raise InputError(folder / CONFIG, found, fix="run finetune again") from None
    load_weights(model, folder / WEIGHTS, fix="run finetune again")
    return model.eval()


def probabilities(model: ImageClassifier, pixels: torch.Tensor, batch: int = 1000) -> np.ndarray:
    """Return (n, classes) float32 probabilities of (n, height, width) pixels from 0 to 1."""
    model.eval()
    with torch.no_grad():
        parts = [model(part).softmax(dim=1) for part in pixels.split(batch)]
    return torch.cat(parts).numpy()
