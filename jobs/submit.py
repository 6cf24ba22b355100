"""`python -m jobs.submit --address http://HEAD:8265 compare --data r8 …`:
submit a job, follow its log, end with its exit code.

Before anything is sent the working directory is measured by Ray's own rules (`.gitignore`,
`.rayignore`, no `.git`, no `.venv`); one that is too large is answered by what to leave out.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llmembed.errors import LlmembedError, UserError

COMMANDS = ("embed", "fit", "tune", "compare", "pipeline", "predict", "report")
MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit one job; returns the exit code of the job, or 130 when no longer followed."""
    top = argparse.ArgumentParser(prog="python -m jobs.submit", description=__doc__)
    top.add_argument("--address", help="the cluster's job server (default: RAY_API_SERVER_ADDRESS)")
    top.add_argument("--working-dir", default=".", metavar="DIR", help="goes with the job")
    top.add_argument("--most-mib", type=int, default=100, metavar="N", help="send at most this")
    top.add_argument("--no-wait", action="store_true", help="do not follow the job")
    top.add_argument("job", choices=COMMANDS)
    top.add_argument("options", nargs=argparse.REMAINDER, help="those of `llmembed JOB`")
    options = top.parse_args(arguments)
    try:
        check_size(Path(options.working_dir), most_mib=options.most_mib)
        return _submit(options)
    except LlmembedError as error:
        print(f"jobs.submit: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1


def check_size(folder: Path, *, most_mib: int) -> float:
    """Size in MiB of what Ray would upload of ``folder``; raises ``UserError`` when it is more
    than ``most_mib``."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    if not folder.is_dir():
        raise UserError(f"--working-dir {folder}: there is no such folder")
    sizes: Counter[str] = Counter()
    root = folder.resolve()

    def add(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(root).parts[0]] += path.stat().st_size

    _dir_travel(
        root, [_get_excludes(root, get_runtime_env_default_excludes())], add, include_gitignore=True
    )
    total = sum(sizes.values()) / MIB
    if total > most_mib:
        shown = [(name, size / MIB) for name, size in sizes.most_common(3) if size >= MIB]
        largest = ", ".join(f"{name} ({size:.0f} MiB)" for name, size in shown)
        raise UserError(
            f"{root} would send {total:.0f} MiB with the job, more than {most_mib}: leave out what "
            f"the job does not need by a line in {root / '.rayignore'}; largest are {largest}"
        )
    return total


def _submit(options: argparse.Namespace) -> int:
    from ray.job_submission import JobSubmissionClient

    address = options.address or os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=shlex.join(["python", "-m", f"jobs.{options.job}", *options.options]),
            runtime_env={"working_dir": options.working_dir},
        )
    except (ConnectionError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise UserError(f"no job could be submitted to {address}: {lines[0]}") from None
    print(f"{job} submitted to {address}", file=sys.stderr)
    if options.no_wait:
        return 0
    try:
        while not client.get_job_status(job).is_terminal():
            asyncio.run(_follow(client, job))
            time.sleep(0.5)  # the log may end a moment before the job
    except KeyboardInterrupt:
        print(f"{job} goes on; `ray job stop {job}` stops it", file=sys.stderr)
        return 130
    info = client.get_job_info(job)
    print(f"{job} {info.status}", file=sys.stderr)
    if info.driver_exit_code is None:
        raise LlmembedError(f"{job} ended {info.status}: {info.message}")
    return int(info.driver_exit_code)


async def _follow(client: object, job: str) -> None:
    async for lines in client.tail_job_logs(job):  # type: ignore[attr-defined]
        print(lines, end="", flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # Ray names every ignore file it reads, several times
    sys.exit(main())
