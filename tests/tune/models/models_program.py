"""``python models_program.py CPUS WORD…``: ``llmembed tune WORD…`` on a Ray of so many CPUs."""

from __future__ import annotations

import sys


def main() -> int:
    import ray

    from llmembed.cli import main as run

    ray.init(
        address="local",
        num_cpus=int(sys.argv[1]),
        include_dashboard=True,  # as `connect` does for a sweep over models
        log_to_driver=False,
        logging_level="ERROR",
    )
    return run(["tune", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
