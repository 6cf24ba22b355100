"""How much memory there is to keep things in."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def free_bytes(device: torch.device) -> int:
    """Free memory of the device, as far as the system tells: on a CPU what the kernel could hand
    out without swapping, and no more than the process's control groups still allow."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([_available(), *_allowed(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _allowed(own: Path, root: Path) -> list[int]:
    """What each control group (version 2 or 1) above this process still allows, in bytes. Cached
    files count as used there, but are given up first."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if kinds
            else ("memory.max", "memory.current")
        )
        top = root / "memory" if kinds else root
        folder = top / path.strip("/")
        # In a container the path may be the host's, and the group stands at the root.
        for group in {folder, *folder.parents, top}:
            if group != top and top not in group.parents:
                continue
            try:
                limit = int((group / names[0]).read_text())
                used = int((group / names[1]).read_text())
                pairs = (each.split() for each in (group / "memory.stat").read_text().splitlines())
                stat = {pair[0]: int(pair[1]) for pair in pairs}
            except (OSError, ValueError):  # no such group, or no limit: "max"
                continue
            found.append(max(0, limit - used + stat.get("inactive_file", 0)))
    return found
