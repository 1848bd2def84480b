"""Measure what the README claims: `python -m bench [PART...]`, on a machine with nothing else to do.

Prints one table of figures, targets and commands, and writes build/bench.json. `text` stands for the measurements
of text training, which also write build/bench-text.json.
"""

from __future__ import annotations

import argparse

from bench.figures import Figure, print_figures, write_figures
from bench.parts import PARTS, Options
from graftline.environment import ROOT

TEXT = (
    "mlm", "clm", "finetune", "privacy", "vision", "questions", "help", "prompts", "scenes", "packages", "loss", "time",
    "checkpoint",
)  # fmt: skip
"""Parts of bench.text_parts, which imports torch."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join([*PARTS, 'text', *TEXT])} (default: all)")
    parser.add_argument("--task", default="mnist", help="for run (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=20, help="for resume, of each component (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2_000_000, help="for validate (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=1000, help="for tokenise (default: %(default)s)")
    parser.add_argument("--records", type=int, default=1_000_000, help="for lineage (default: %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="for mlm, clm, finetune, privacy, vision, questions, help, prompts, checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="for mlm, clm, finetune, vision and the tasks from questions to packages: of a window "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--tokens", type=int, help="for loss, time: to learn from (default: 400000 for loss, 2600000 for time)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="for loss, time (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="for mlm, clm, finetune (default: 1 2)")
    parser.add_argument("--cpu-time", action="store_true", help="windows and rates by CPU time: beside other work")
    arguments = parser.parse_args()
    known = [*PARTS, "text", *TEXT]
    if unknown := sorted(set(arguments.parts) - set(known)):
        parser.error(f"unknown part {unknown[0]!r}; expected some of {', '.join(known)}")
    asked = arguments.parts or [*PARTS, *TEXT]
    parts = dict.fromkeys(name for part in asked for name in (TEXT if part == "text" else (part,)))
    figures = [figure for part in parts for figure in _measure(part, arguments)]
    print_figures(figures)
    write_figures(figures, ROOT / "build" / "bench.json")


def _measure(part: str, arguments: argparse.Namespace) -> list[Figure]:
    if part in PARTS:
        return PARTS[part](
            Options(arguments.task, arguments.kills, arguments.rows, arguments.megabytes, arguments.records)
        )
    from bench.text_parts import TEXT_PARTS, TextOptions

    options = TextOptions(
        arguments.rounds, arguments.seconds, arguments.tokens, arguments.seeds, tuple(arguments.threads),
        arguments.cpu_time,
    )  # fmt: skip
    return TEXT_PARTS[part](options)


if __name__ == "__main__":
    main()
