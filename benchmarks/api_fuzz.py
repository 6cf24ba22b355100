"""What the service answers to requests made by a machine from its own OpenAPI page.

``schemathesis`` makes requests that fit the page and requests that don't; none may end in a 5xx.
By default small classifiers are fitted and served here; ``--url`` names a running service::

    python benchmarks/api_fuzz.py --examples 250 --json fuzz.json     # more than 5,000 cases
    python benchmarks/api_fuzz.py --url http://127.0.0.1:8000

Every page is asked by names nobody serves and, in a second round, by that of a model served.
Exit code 1 if any answer was a 5xx, each of which is printed with a curl command; 2 where
schemathesis is not installed (``pip install 'llmembed[dev]'``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from running import ROOT, Figures, installed, parse

SUMMED = ("cases", "server_errors", "errors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a running service; default: small models served here")
    parser.add_argument("--examples", type=int, default=250, help="requests per page and round")
    parser.add_argument("--phases", default="examples,coverage,fuzzing", help="of schemathesis")
    parser.add_argument("--seed", type=int, default=1)
    options = parse(parser, examples=1, phases="examples,fuzzing")
    if not installed("schemathesis", extra="dev", without="nothing can be asked"):
        return 2
    figures = Figures(options.json)
    figures.add(seed=options.seed, rounds=[])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        served = None if options.url else serve_small(Path(temporary))
        url = options.url or served.url
        for name in (None, first_model(url)):
            report = fuzz(url, name, options, Path(temporary))
            told = {
                "cases": report["test_cases"]["generated"],
                "server_errors": report["test_cases"]["with_failures"],
                "errors": len(report["errors"]),
                "operations": report["operations"]["tested"],
            }
            figures.add(
                rounds=[*figures["rounds"], told],
                schemathesis=report["schemathesis_version"],
                seconds=time.perf_counter() - began,
            )
        if served is not None:
            served.stop()
    figures.add(
        operations=figures["rounds"][0]["operations"],
        **{key: sum(r[key] for r in figures["rounds"]) for key in SUMMED},
    )
    figures.finish()
    print(json.dumps(figures, indent=1))
    return 1 if figures["server_errors"] or figures["errors"] else 0


def fuzz(url: str, name: str | None, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The report of one round; ``name``: put wherever a path asks for a model."""
    config, report = folder / "schemathesis.toml", folder / "report.json"
    # The name as JSON is a TOML string too.
    config.write_text("" if name is None else f'[parameters]\n"path.name" = {json.dumps(name)}\n')
    report.unlink(missing_ok=True)
    only = [] if name is None else ["--include-path-regex", r"\{name\}"]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{url}/openapi.json", "--checks", "not_a_server_error", *only),
        *("--phases", options.phases, "--max-examples", str(options.examples)),
        *("--seed", str(options.seed), "--no-shrink", "--continue-on-failure"),
        *("--generation-database", "none", "--warnings", "off", "--no-color"),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not report.is_file():
        print(done.stdout, done.stderr, file=sys.stderr)
    return json.loads(report.read_text())


def first_model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
        return json.load(answer)["data"][0]["id"]


def serve_small(folder: Path) -> Any:
    """The classifiers of the tests, behind a server in a thread of this process."""
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "serve")]
    from small_models import Served, fit_small
    from tiny_bert import save_tiny_bert

    from llmembed.backbones import resolve

    bert = save_tiny_bert(folder / "tiny-bert")
    spec = resolve(str(bert), reads="mean:1-2 cls:1", max_tokens=24, dtype="float32")
    models = [str(model) for model in fit_small(spec, folder).values()]
    files = str(folder / "files")  # feedback that is sent lies there, and goes with it
    return Served({"models": models, "api_key_env": None, "files": files})


if __name__ == "__main__":
    sys.exit(main())
