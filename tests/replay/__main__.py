"""Records journals: ``python -m tests.replay record NAME``, by the code of ``--code``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "models")]

from recording import record  # noqa: E402 - the folders of tests are no packages


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run all programs, and write down the journal")
    recording.add_argument("name", help="of the file: a release, such as 0.2.0, or schema-0005")
    recording.add_argument("--code", type=Path, default=HERE.parents[1], help="a checkout of polos")
    recording.add_argument("--into", type=Path, default=HERE / "journals", help="the folder of journals")
    wanted = parser.parse_args()
    print(record(wanted.name, code=wanted.code.resolve(), folder=wanted.into))
    return 0


if __name__ == "__main__":
    sys.exit(main())
