"""Removes a tree, and is killed when all of it is done but the commit: ``killed_remover.py URL ROOT``."""

import os
import signal
import sys

from hands import hand

from polos.journal.database import Database
from polos.journal.retention import remove_tree

DAYS = {"completed": 1.0, "failed": 1.0, "cancelled": 1.0}

if __name__ == "__main__":
    remover = hand(Database(sys.argv[1]))
    [answer] = remover.begin(remove_tree(sys.argv[2], project="default", topic="t", days=DAYS))
    assert answer, "the tree is not old enough"
    os.kill(os.getpid(), signal.SIGKILL)
