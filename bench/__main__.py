"""Measure what the README claims: `python -m bench [PART...]`, on a machine with nothing else to do.

Prints one table of figures, targets and commands, and writes build/bench.json.
"""

from __future__ import annotations

import argparse

from bench.figures import print_figures, write_figures
from bench.parts import PARTS, Options
from graftline.environment import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--task", default="mnist", help="for run (default: %(default)s)")
    parser.add_argument(
        "--kills", type=int, default=20, help="for resume, of each component (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=2_000_000, help="for validate (default: %(default)s)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; expected some of {', '.join(PARTS)}")
    options = Options(arguments.task, arguments.kills, arguments.rows)
    figures = [figure for part in arguments.parts or PARTS for figure in PARTS[part](options)]
    print_figures(figures)
    write_figures(figures, ROOT / "build" / "bench.json")


if __name__ == "__main__":
    main()
