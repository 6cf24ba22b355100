"""Which process drives a run, and whether that process is gone.

A driver killed with SIGKILL can't end its runs. Each run therefore carries a tag that names its
process, and the next driver on that machine closes the runs of processes that are no more.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

DRIVER_TAG = "llmembed.driver"


@dataclass(frozen=True, kw_only=True)
class Orphans:
    """``closed``: ids of the runs closed. ``unknown``: RUNNING runs of ours whose process can't
    be judged from this machine; they are left as they are."""

    closed: tuple[str, ...] = ()
    unknown: int = 0


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A process, named so that another process can tell whether it still lives.

    ``machine`` is a hash, since the machine id is not to be published. ``boot``, ``namespace``
    (of process ids) and ``started`` (clock ticks since boot) tell a number given anew from the
    old process; they are empty where there is no ``/proc``.
    """

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Driver:
        """This process."""
        machine = _read("/etc/machine-id") + socket.gethostname()
        try:
            namespace = str(Path("/proc/self/ns/pid").readlink())
        except OSError:
            namespace = ""
        return cls(
            host=socket.gethostname(),
            machine=hashlib.sha256(b"llmembed" + machine.encode()).hexdigest()[:16],
            boot=_read("/proc/sys/kernel/random/boot_id"),
            namespace=namespace,
            pid=os.getpid(),
            started=_started(os.getpid()) or "",
        )

    def to_tag(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_tag(cls, tag: str) -> Driver | None:
        """The driver a tag names, or None when the tag is not one of ours."""
        try:
            return cls(**json.loads(tag))
        except (ValueError, TypeError):
            return None

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None when that can't be told from here."""
        here = Driver.here()
        if self.machine != here.machine:
            return None
        if self.boot != here.boot:
            return True  # the machine was started anew since
        if self.namespace != here.namespace:
            return None  # another container of this machine
        if not here.started:
            return not _answers(self.pid)
        return _started(self.pid) != self.started


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Start time of a living process in clock ticks since boot; None when there is none.

    Fields 3 (state) and 22 (starttime) of ``/proc/PID/stat``, proc(5); the name in field 2 may
    hold spaces and brackets, so fields are counted from the last closing one."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
