"""cluster.yaml against Ray's own schema and checks."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def config() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_the_cluster_file():
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    filled = fillout_defaults(config())
    validate_config(filled)
    assert filled["head_node_type"] == "head"


def test_the_check_can_fail():
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    broken = copy.deepcopy(config())
    broken["max_worker"] = 3
    with pytest.raises(ValidationError):
        validate_config(fillout_defaults(broken))


def test_it_installs_the_versions_that_were_tested():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    words = " ".join(config()["setup_commands"]).replace('"', "").split()
    pinned = [word.split("==") for word in words if "==" in word]
    assert len(pinned) >= 8
    for name, version in pinned:
        assert pins[name.split("[")[0]] == version, name


def test_nodes_have_what_the_architecture_says():
    types = config()["available_node_types"]
    assert types["head"]["max_workers"] == 0
    assert types["a100"]["resources"]["GPU"] == 8
    assert "GPU" not in types["cpu"]["resources"]


def test_a_job_finds_the_python_that_has_the_packages():
    for commands in (config()["head_start_ray_commands"], config()["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        assert start.startswith("export PATH=$HOME/venv/bin:$PATH; ")
