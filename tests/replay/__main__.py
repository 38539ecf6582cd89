"""Records journals, and upgrades live systems: ``python -m tests.replay record NAME``"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "models")]

from recording import record  # noqa: E402 - the folders of tests are no packages
from rolling import upgrade_live  # noqa: E402

DATABASES = ("sqlite", "postgresql")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run all programs, and write down the journal")
    recording.add_argument("name", help="of the file: a release, such as 0.2.0, or schema-0005")
    recording.add_argument("--code", type=Path, default=HERE.parents[1], help="a checkout of polos")
    recording.add_argument("--into", type=Path, default=HERE / "journals", help="the folder of journals")
    rolling = commands.add_parser("upgrade", help="upgrade a live system from an older version to this one")
    rolling.add_argument("--code", type=Path, required=True, help="a checkout of the older version")
    rolling.add_argument("--database", action="append", choices=DATABASES, help="both unless given")
    rolling.add_argument("--times", type=int, default=5, help="how often each program, in each stage")
    wanted = parser.parse_args()
    if wanted.command == "record":
        print(record(wanted.name, code=wanted.code.resolve(), folder=wanted.into))
        return 0
    for kind in wanted.database or DATABASES:
        print(upgrade_live(wanted.code.resolve(), kind=kind, times=wanted.times), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
