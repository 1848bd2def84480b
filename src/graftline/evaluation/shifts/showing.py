"""What a person is shown of shifts: shifts.json, a picture and sections of the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from graftline.evaluation.shifts.datasets import CLEAN
from graftline.evaluation.shifts.measuring import FAR, Arms, Shifts
from graftline.jsonfile import write_json
from graftline.plots import ACCENT, INK, MUTED, figure, legend, save
from graftline.problems.sections import Section, add_sections
from graftline.score import Estimate
from graftline.tasks.evaluate import label_name

PICTURE = "shifts.png"


def write(found: Shifts, amount: str, out: Path) -> None:
    """Write shifts.json, and add the picture and the sections to the evaluation in `out`."""
    write_json(as_dict(found), out / "shifts.json")
    sections = []
    if found.ways:
        _plot(found, out / PICTURE)
        sections.append(_spoiled(found, amount))
    if found.named:
        sections.append(_named(found, amount))
    add_sections(sections, out)


def as_dict(found: Shifts) -> dict[str, Any]:
    """Return what shifts.json holds: each set of rows, and every fit's value on it."""
    mce = found.corruption_error() if found.ways else None
    return {
        "score": found.score.name,
        "labels": label_name(found.params.labels),
        "rows": found.rows,
        "mce": mce and asdict(mce),
        "sets": [
            {
                "corruption": way, "severity": severity,
                "released": _dict(found.estimated([name], found.released)),
                "ece": _dict(found.estimated([name], found.calibration)),
                "arms": _arms_dict(found.arms([name])),
                "trunk_ece": _mean(found, "trunk", name), "scratch_ece": _mean(found, "scratch", name),
            }
            for way, severity, name in _listed(found)
        ],
        "data": {
            name: {one: _arms_dict(found.arms([one], values)) for one in (CLEAN, FAR)}
            for name, values in found.named.items()
        },
        "fits": {"spoiled": found.values, "data": found.named},
    }  # fmt: skip


def _listed(found: Shifts) -> list[tuple[str | None, int, str]]:
    if not found.ways:
        return []
    each = [(way, severity, found.sets([way], [severity])[0]) for way in found.ways for severity in found.severities]
    return [(None, 0, CLEAN), *each]


def _mean(found: Shifts, arm: str, name: str) -> float | None:
    values = found.errors.get(arm, {}).get(name)
    return float(np.mean(list(values.values()))) if values else None


def _dict(one: Estimate | None) -> dict[str, float] | None:
    return None if one is None else asdict(one)


def _arms_dict(arms: Arms | None) -> dict[str, Any] | None:
    return None if arms is None else asdict(arms)


def _spoiled(found: Shifts, amount: str) -> Section:
    title = found.score.title
    groups = [("none", [CLEAN]), *((way, found.sets([way])) for way in found.ways), ("all ways", found.sets())]
    arms, mce = found.arms(found.sets()), found.corruption_error()
    severities, labels = ", ".join(map(str, found.severities)), label_name(found.params.labels)
    note = (
        f"{found.rows} test rows, spoiled in {len(found.ways)} ways at severity {severities}. Both arms are the lift's "
        f"fits with {labels} {amount}: {_verdict(arms)}"
    )
    if mce is not None:
        note += (
            f" Mean corruption error against scratch (mCE): {mce.value:.3f}, 95% {mce.low:.3f} to {mce.high:.3f}; "
            "below 1 the pretrained model errs less."
        )
    return Section(
        "On spoiled data", note, PICTURE, f"Test {title} by severity, from the trunk and from scratch; lift by way",
        ("spoiled by", f"released: {title}, 95%", "calibration error", "from the trunk", "from scratch", "lift, 95%"),
        tuple(_line(found, name, sets) for name, sets in groups),
    )  # fmt: skip


def _verdict(arms: Arms | None) -> str:
    """Return in words whether pretraining helps."""
    if arms is None:
        return "the score is not defined on these rows."
    helps = "pretraining helps" if arms.lift.low > 0 else "pretraining harms" if arms.lift.high < 0 else None
    return f"{helps} under these shifts." if helps else "whether pretraining helps under these shifts is not sure."


def _line(found: Shifts, name: str, sets: list[str]) -> tuple[str, ...]:
    arms, released = found.arms(sets), found.estimated(sets, found.released)
    return (
        name.replace("_", " "),
        "" if released is None else released.told(".2%" if found.score.share else ".4g"),
        "" if (error := found.estimated(sets, found.calibration)) is None else f"{error.value:.2%}",
        *_arms_told(found, arms),
    )


def _named(found: Shifts, amount: str) -> Section:
    lines = []
    for name, values in found.named.items():
        shift = found.params.data[name]
        for one, patterns, whose in ((CLEAN, shift.train, "like those learned from"), (FAR, shift.test, "the others")):
            arms = found.arms([one], values)
            lines.append((name, f"{shift.column} {', '.join(patterns)}: {whose}", *_arms_told(found, arms)))
    note = (
        f"Fits that learn from rows of one source, with {label_name(found.params.labels)} {amount}, asked about test "
        "rows of it and of another. Pretraining has seen rows of both, without labels."
    )
    header = ("shift", "test rows", "from the trunk", "from scratch", "lift, 95%")
    return Section("From one source to another", note, header=header, lines=tuple(lines))


def _arms_told(found: Shifts, arms: Arms | None) -> tuple[str, str, str]:
    if arms is None:
        return ("", "", "")
    style, lift = (".2%", arms.lift.told("+.1f", 100)) if found.score.share else (".4g", arms.lift.told("+.4g"))
    return format(arms.trunk.value, style), format(arms.scratch.value, style), lift


def _plot(found: Shifts, path: Path) -> None:
    """Draw the score by severity, mean over the ways, and the lift of each way; 95% t intervals over the seeds."""
    plot = figure(9.6, max(3.8, 0.9 + 0.22 * len(found.ways)))
    left, right = plot.subplots(1, 2)
    severities = (0, *found.severities)
    by_severity = [found.arms([CLEAN] if not severity else found.sets(None, [severity])) for severity in severities]
    for arm, colour, shift, label in (
        ("scratch", MUTED, -0.04, "from scratch"), ("trunk", ACCENT, 0.04, "from the pretrained trunk"),
    ):  # fmt: skip
        known = [(severity, getattr(arms, arm)) for severity, arms in zip(severities, by_severity, strict=True) if arms]
        values = np.array([one.value for _, one in known])
        ends = np.clip([(one.low, one.high) for _, one in known], found.score.lowest, found.score.highest).T
        places = np.array([severity for severity, _ in known]) + shift
        left.errorbar(places, values, np.abs(ends - values), color=colour, marker="o", capsize=3, label=label)
    released = [found.estimated([CLEAN] if not s else found.sets(None, [s]), found.released) for s in severities]
    shown = [(severity, one.value) for severity, one in zip(severities, released, strict=True) if one]
    left.plot(*zip(*shown, strict=True), color=INK, linestyle="--", linewidth=1.2, label="the released model")
    left.set_xticks(severities, ["clean", *map(str, found.severities)])
    left.set(xlabel="severity", ylabel=f"test {found.score.title}", title="Mean over the ways")
    lifts = [(way, arms.lift) for way in found.ways if (arms := found.arms(found.sets([way])))]
    scale = 100 if found.score.share else 1
    lines = np.arange(len(lifts))
    values = scale * np.array([lift.value for _, lift in lifts])
    spread = scale * np.array([(lift.value - lift.low, lift.high - lift.value) for _, lift in lifts]).T
    right.axvline(0, color=MUTED, linewidth=1)
    right.errorbar(values, lines, xerr=spread, fmt="o", color=ACCENT, capsize=3)
    right.set_yticks(lines, [way.replace("_", " ") for way, _ in lifts])
    right.invert_yaxis()
    right.set(xlabel="points" if found.score.share else found.score.title, title="Lift of pretraining by way")
    legend(plot)
    save(plot, path)
