"""index.html of an evidence file: one page without anything from elsewhere; every value in it is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PICTURE = 2 << 20
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 25%, transparent) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 4rem }
code { font-size: .85em; overflow-wrap: anywhere } img { max-width: 100%; background: #fff }
.covered { color: light-dark(#14632a, #7bd88f) } .part { color: light-dark(#7a4b00, #f0b95b) }
.not { color: light-dark(#a11, #ff8f8f) } ul { margin: .3rem 0; padding-left: 1.2rem }
"""
_CLASSES = {"covered": "covered", "in part": "part", "not covered": "not"}


def page(index: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
    """Return the page of what index.json says.

    Args:
        pictures: PNG files of the release by path; what is none, or is large, is only linked.
    """
    title = f"Evidence of {index['release']['name']}"
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(title)}</h1>", _verify(index), _release(index), _annex(index), _metrics(index),
        *(_picture(path, data) for path, data in sorted(pictures.items())),
        _files(index), "</main></body></html>", "",
    ]  # fmt: skip
    return "\n".join(parts).encode()


def _verify(index: Mapping[str, Any]) -> str:
    ledger = index["ledger"]
    return (
        "<p>Verify it before you read on: <code>python verify.py EVIDENCE.zip --key FINGERPRINT</code>, with a "
        "fingerprint that you got from elsewhere. The ledger began with key "
        f"<code>{escape(ledger['first_key'])}</code>; the checkpoint over its {ledger['size']} entries is signed by "
        f"<code>{escape(ledger['checkpoint_key'])}</code>"
        + ("" if ledger["knows_checkpoint_key"] else ", which made this file and which the ledger does not know")
        + ".</p>"
    )


def _release(index: Mapping[str, Any]) -> str:
    rows = {
        **{name: str(value) for name, value in index["release"].items()},
        "data sheet": index["datasheet"] or "none",
        "the model's own bytes": "in this file" if index["with_model"] else "not in this file: digests only",
    }
    return "<h2>Release</h2>" + _table(("", ""), [(escape(name), escape(text)) for name, text in rows.items()])


def _metrics(index: Mapping[str, Any]) -> str:
    rows = [
        (escape(m["name"]), f"{m['value']:.6g}", f"{m['low']:.6g} to {m['high']:.6g}" if "low" in m else "")
        for m in index["metrics"]
    ]
    return "<h2>Metrics</h2>" + _table(("metric", "value", "95% interval"), rows)


def _picture(path: str, data: bytes) -> str:
    if not data.startswith(_PNG) or len(data) > _LARGEST_PICTURE:
        return f"<p>{_link(path)}</p>"
    inside = base64.b64encode(data).decode()
    return f'<p><img alt="{escape(path)}" src="data:image/png;base64,{inside}"></p>'


def _annex(index: Mapping[str, Any]) -> str:
    rows = []
    for point in index["annex_iv"]:
        links = "".join(f"<li>{_link(path)}</li>" for path in point["files"][:12])
        more = len(point["files"]) - 12
        links += f"<li>and {more} more</li>" if more > 0 else ""
        said = f"<p>{escape(point['says'])}</p>" if point["says"] else ""
        left = f"<p>Not covered: {escape(point['open'])}</p>" if point["open"] else ""
        coverage = point["coverage"]
        rows.append(
            (
                escape(point["point"]),
                escape(point["asks"]),
                f'<strong class="{_CLASSES[coverage]}">{escape(coverage)}</strong>{said}{left}'
                + (f"<ul>{links}</ul>" if links else ""),
            )
        )
    return f"<h2>In the order of {escape(index['annex_source'])}</h2>" + _table(("point", "asks for", "here"), rows)


def _files(index: Mapping[str, Any]) -> str:
    rows = [(_link(f["path"]), f"{f['size']:,}", f"<code>{escape(f['sha256'])}</code>") for f in index["files"]]
    absent = [
        (escape(f["path"]), f"{f['size']:,}", f"<code>{escape(f['sha256'])}</code>") for f in index["by_digest_only"]
    ]
    table = "<h2>Files</h2>" + _table(("file", "bytes", "sha256"), rows)
    if absent:
        table += "<h2>Files of the release by digest only</h2>" + _table(("file", "bytes", "sha256"), absent)
    return table


def _link(path: str) -> str:
    return f'<a href="{escape(quote(path))}">{escape(path)}</a>'


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table of cells that are escaped already."""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head) if any(head) else ""
    return f"<table>{f'<tr>{names}</tr>' if names else ''}{lines}</table>"
