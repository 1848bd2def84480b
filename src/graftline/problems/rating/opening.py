"""HEAD.md: what head.safetensors computes, for those who open a release without Graftline."""

from __future__ import annotations

from pathlib import Path

from graftline.durable import write_new

NAME = "HEAD.md"
_TEXT = """\
# The head of ratings

`config.json` and `model.safetensors` are the trunk, `transformers.AutoModelForMaskedLM.from_pretrained(".")`;
items.json says which item each token is, and `[MASK]` is the token behind them. `head.safetensors` tells ratings by it:

```python
import json, torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

facts, items = json.load(open("head.json")), json.load(open("items.json"))
model, head = AutoModelForMaskedLM.from_pretrained(".").eval(), load_file("head.safetensors")
count, scale = len(items["items"]), facts["ratings"]
vectors = model.get_input_embeddings().weight[:count]

def rate(given: dict[str, float], asked: list[str]) -> list[float]:
    known = sorted(given, key=items["items"].index)  # ordered histories: as they stand
    j, i = (torch.tensor([items["items"].index(one) for one in of], dtype=torch.long) for of in (known, asked))
    y = (torch.tensor([given[one] for one in known]) - scale["mean"]) / scale["deviation"]
    ids = torch.cat([torch.tensor([model.config.mask_token_id]), j])[None]
    places = torch.zeros_like(ids)  # ordered: [MASK] at len(known), the items from 0 on
    z = model.head(model.model(input_ids=ids, position_ids=places).last_hidden_state[:, 0])[0]
    x = torch.nn.functional.layer_norm(vectors, vectors.shape[1:])
    item, user, slope = head["ridges"]
    root = x.shape[1] ** 0.5
    B = head["sums"] / (head["counts"] + item) + x @ head["by_item"] / root
    B = B + head["by_bias"] * model.decoder.bias[:count]
    n, sx, sxx = len(j) + user, B[j].sum(), B[j].square().sum() + slope
    sy, sxy = y.sum(), (B[j] * y).sum() + slope
    a, s = (sxx * sy - sx * sxy) / (n * sxx - sx * sx), (n * sxy - sx * sy) / (n * sxx - sx * sx)
    left = y - a - s * B[j]
    alike = (x[i] @ head["match"]) @ x[j].T / root
    shares = torch.cat([alike, head["none"].expand(len(i), 1)], dim=1).softmax(dim=1)[:, :-1]
    cross = x[i] @ head["cross"] @ (left @ x[j]) / (len(j) + 1) ** 0.5 / x.shape[1]
    told = cross + a + s * B[i] + (z * x[i]) @ head["by_state"] / root + head["gain"] * (shares @ left)
    return (told * scale["deviation"] + scale["mean"]).clamp(scale["least"], scale["largest"]).tolist()
```

`half_width` in head.json is how far an interval reaches to each side, or null. Of an item that is not known, x and B
are 0.
"""


def write(folder: Path) -> None:
    write_new(folder / NAME, _TEXT.encode())


def example() -> str:
    """Return the code of it."""
    return _TEXT.split("```python\n")[1].split("```")[0]
