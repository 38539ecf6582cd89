"""Clocks of processes that are wrong: by seconds in a file, which may be changed while they run.

The clock that says what time it is, that is; the one that only goes on (monotonic) is nobody's to set. They
load a library of our own, for libfaketime breaks `time.sleep` of Python 3.11 and later.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLOCK = "FAULT_CLOCK"  # variable that names the file
_SECONDS = struct.Struct("=q")
_SOURCE = f"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *wrong_by;

__attribute__((constructor)) static void look(void) {{
    const char *name = getenv("{CLOCK}");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof *wrong_by, PROT_READ, MAP_SHARED, file, 0);
    if (found == MAP_FAILED) abort();
    wrong_by = found;
    close(file);
}}

int clock_gettime(clockid_t id, struct timespec *at) {{
    int result = syscall(SYS_clock_gettime, id, at);
    if (result == 0 && wrong_by && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        at->tv_sec += *wrong_by;
    return result;
}}

int gettimeofday(struct timeval *at, void *zone) {{
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}}

time_t time(time_t *at) {{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}}
"""


def why_no_clocks() -> str:
    """Return why clocks cannot be set wrong here; empty where they can."""
    if sys.platform != "linux":
        return "what stands between a process and its clock is loaded into it as on Linux"
    return "" if shutil.which("cc") else "cc is not on PATH (apt-get install gcc libc6-dev)"


class Clocks:
    """Clocks by name, all right at first.

    Attributes:
        set_times: How often one was changed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._library = folder / "clock.so"
        source = folder / "clock.c"
        source.write_text(_SOURCE)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        self.set_times = 0

    def prefix_of(self, name: str) -> Sequence[str]:
        """Return what the command of a process begins with that goes by this clock."""
        file = self._file(name)
        if not file.exists():
            file.write_bytes(_SECONDS.pack(0))
        return ["env", f"LD_PRELOAD={self._library}", f"{CLOCK}={file}"]

    def set(self, name: str, seconds: int) -> None:
        """Have it be wrong by so many seconds, from one moment to the next."""
        with self._file(name).open("r+b") as file:
            file.write(_SECONDS.pack(seconds))
        self.set_times += 1

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
