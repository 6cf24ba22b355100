"""What the service answers to requests made by a machine from its own OpenAPI page.

``schemathesis`` makes requests that fit the page and requests that don't; none may end in a 5xx.
By default small classifiers are fitted and served here; ``--url`` names a running service::

    python benchmarks/api_fuzz.py --examples 250 --json fuzz.json     # more than 5,000 cases
    python benchmarks/api_fuzz.py --url http://127.0.0.1:8000

Every page is asked by names nobody serves and, in a second round, by that of a model served.
Exit code 1 if any answer was a 5xx, each of which is printed with a curl command.
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

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a running service; default: small models served here")
    parser.add_argument("--examples", type=int, default=250, help="requests per page and round")
    parser.add_argument("--phases", default="examples,coverage,fuzzing", help="of schemathesis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        served = None if options.url else serve_small(Path(temporary))
        url = options.url or served.url
        rounds = [fuzz(url, name, options, Path(temporary)) for name in (None, first_model(url))]
        if served is not None:
            served.stop()
    found = {
        "cases": sum(r["test_cases"]["generated"] for r in rounds),
        "server_errors": sum(r["test_cases"]["with_failures"] for r in rounds),
        "errors": sum(len(r["errors"]) for r in rounds),
        "operations": rounds[0]["operations"]["tested"],
        "seconds": time.perf_counter() - began,
        "seed": options.seed,
        "schemathesis": rounds[0]["schemathesis_version"],
    }
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["server_errors"] or found["errors"] else 0


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
    return Served({"models": models, "api_key_env": None})


if __name__ == "__main__":
    sys.exit(main())
