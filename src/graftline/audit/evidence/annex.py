"""The index of an evidence file in the order of Annex IV of Regulation (EU) 2024/1689, the AI Act.

Annex IV lists what the technical documentation of a high-risk AI system must hold. A pipeline that trains models
knows a part of it. Each point here says which files cover it and what of it they leave open; what no file covers is
listed as not covered, for the provider to add.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

SOURCE = "Regulation (EU) 2024/1689, Annex IV (OJ L, 2024/1689, 12.7.2024)"
Coverage = Literal["covered", "in part", "not covered"]


@dataclass(frozen=True)
class Point:
    """One point of the annex."""

    number: str
    asks: str
    """In our words; the regulation's own stand."""
    covers: tuple[tuple[str, str], ...] = ()
    """Patterns of paths, each with what those files tell of it."""
    open: str = ""
    """What they leave open even if all of them are there; empty if nothing."""

    def as_dict(self, paths: Iterable[str]) -> dict[str, Any]:
        """Return the point with those of `paths` that cover it; what is said is said of files that are there."""
        listed = list(paths)
        of = {pattern: [path for path in listed if fnmatchcase(path, pattern)] for pattern, _ in self.covers}
        found = sorted({path for matched in of.values() for path in matched})
        absent = [pattern for pattern, matched in of.items() if not matched]
        coverage: Coverage = "not covered" if not found else "in part" if self.open or absent else "covered"
        left = [self.open] if self.open else []
        left += [f"What would be in {', '.join(absent)}: this release has no such file."] if found and absent else []
        return {
            "point": self.number,
            "asks": self.asks,
            "coverage": coverage,
            "files": found,
            "says": " ".join(says for pattern, says in self.covers if of[pattern] and says),
            "open": " ".join(left) if found else "All of it: the provider must add it.",
        }


_CARD, _MANIFEST, _SHEET = "release/README.md", "release/manifest.json", "datasheet.md"
_RECORDS, _ENTRIES, _METRICS = "records/*.json", "ledger/entries/*.json", "metrics.json"
_CONFIG, _SCHEMA, _PROFILE = "release/config.json", "release/schema.json", "release/profile.json"

POINTS = (
    Point(
        "1(a)", "What the system is for, who provides it, its version and how that relates to earlier ones",
        (
            (_CARD, "The model card states the intended use."),
            (_MANIFEST, "The manifest states the version, and the champion that it was compared with."),
            (_ENTRIES, "The ledger has every release and promotion of the task."),
        ),
        "Who the provider is.",
    ),
    Point("1(b)", "How it works together with hardware and software, other AI systems among them, outside itself"),
    Point(
        "1(c)", "Versions of software and firmware, and what updates require",
        (("locks/*.txt", "Every package that training ran with, pinned by version and hash."),),
        "What updates require.",
    ),
    Point("1(d)", "All forms in which it is placed on the market: packages, downloads, interfaces"),
    Point("1(e)", "The hardware on which it is meant to run"),
    Point("1(f)", "Where it is part of a product: pictures of the outside, the marking and the layout inside"),
    Point("1(g)", "The user interface that the deployer gets"),
    Point(
        "1(h)", "Instructions for use", ((_CARD, "The model card: intended use and measured quality."),),
        "Instructions for the deployer of the whole system.",
    ),
    Point(
        "2(a)", "The steps of its development, and what of others was used in it: pre-trained systems, tools",
        (
            (_RECORDS, "A record of every step: its parameters, the digests of all that went in (base checkpoints "
             "too) and, where they were known, commit, image and lock."),
            ("signatures/*", "Each is signed."),
            ("exports/slsa.intoto.jsonl", ""), ("exports/prov.json", ""),
        ),
    ),
    Point(
        "2(b)", "The design: logic, choices and their reasons, what is optimised for, expected output, trade-offs",
        ((_RECORDS, "Objective, head and every parameter as used."),), "Reasons, assumptions and trade-offs.",
    ),
    Point(
        "2(c)", "The architecture, and the computing that development, training, testing and validation took",
        (
            (_CONFIG, "The model's form."),
            (_RECORDS, "Each step's environment: threads, number format, library, instruction set."),
        ),
        "The computing resources spent, and the architecture around the model.",
    ),
    Point(
        "2(d)", "Data sheets: training methods, data sets, their origin, scope and features, labelling, cleaning",
        (
            (_SHEET, "The task's data sheet; of labelling and cleaning what it tells."),
            (_SCHEMA, "The columns of the data set."), (_PROFILE, "Their distributions."),
            (_RECORDS, "The digests of its files and of the raw data, and how many rows were put aside."),
        ),
    ),
    Point("2(e)", "Which human oversight is needed, and the means by which deployers can interpret the outputs"),
    Point(
        "2(f)", "Changes that are determined beforehand, and how the system stays compliant through them",
        ((_RECORDS, "The gate that a retrained model must pass: its parameters are in the record of evaluate."),),
        "Any other change, and the reasons for the limits.",
    ),
    Point(
        "2(g)", "How it was validated and tested: data, metrics, discriminatory effects, dated and signed reports",
        (
            (_METRICS, "Metrics, with 95% intervals where they were computed."),
            ("release/*.png", "The pictures of the evaluation."),
            (_RECORDS, "Its signed record, which names the test data by digest."),
            (_ENTRIES, "The ledger dates the release."),
        ),
        "Effects on persons and groups, and the signature of a responsible person: the keys here are of machines or "
        "teams.",
    ),
    Point(
        "2(h)", "Measures of cybersecurity",
        (
            ("signatures/*", "Signed records."), ("release/model.sig", "A signed model."),
            ("locks/*.txt", "Pinned packages."), ("ledger/checkpoint.txt", "A ledger that shows changes."),
        ),
        "Security of the deployed system, such as against adversarial inputs.",
    ),
    Point(
        "3", "Monitoring, functioning and control: limits, accuracy for persons and groups, foreseeable risks, "
        "oversight, input data",
        (
            (_METRICS, "Accuracy overall."), (_SHEET, "Limits of the data, as far as the data sheet tells."),
            (_SCHEMA, "What inputs must look like."),
        ),
        "Accuracy for persons and groups, unintended outcomes, risks, human oversight.",
    ),
    Point("4", "Why the performance metrics suit this system"),
    Point("5", "The risk management system (Article 9)"),
    Point(
        "6", "What the provider changed through the system's life",
        ((_ENTRIES, "Every release, promotion, rollback and erasure of the task up to the checkpoint."),),
        "Changes outside the model.",
    ),
    Point(
        "7", "Harmonised standards applied, or else how the requirements are met, and other specifications applied",
        (("exports/*", "Specifications that these files follow: in-toto Statement v1, SLSA provenance v1, DSSE, "
          "OpenSSF Model Signing v1, RFC 6962, C2SP tlog-checkpoint, RFC 8785, CycloneDX 1.6, W3C PROV, Croissant "
          "1.1."),),
        "Harmonised standards, and how the requirements of Chapter III, Section 2 are met.",
    ),
    Point("8", "The EU declaration of conformity (Article 47)"),
    Point("9", "How performance is watched after release (Article 72), and the plan for it"),
)  # fmt: skip


def index(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return every point in the annex's order, each with what covers it."""
    listed = list(paths)
    return [point.as_dict(listed) for point in POINTS]
