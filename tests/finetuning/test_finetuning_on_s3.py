"""Checkpoints below an ``s3://`` address: a real server of that protocol on the loopback address,
and workers of a Ray that is started with its keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_bert import save_tiny_bert

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_checkpoints_lie_on_s3_and_training_goes_on_from_there(s3: Any, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="models")
    server = s3.meta.endpoint_url.removeprefix("http://")
    address = f"s3://models/here?endpoint_override={server}&scheme=http&region=us-east-1"
    path = [*map(str, (HERE, HERE.parent, HERE.parent.parent))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    del environment["AWS_ENDPOINT_URL"]  # the address alone says where
    model = save_tiny_bert(tmp_path / "tiny-bert")
    program = [sys.executable, str(HERE / "finetune_on_s3.py"), str(model), address]
    told_file = tmp_path / "told.json"
    subprocess.run([*program, str(told_file)], env=environment, check=True, timeout=840)
    found = s3.list_objects_v2(Bucket="models", Prefix="here/train/")["Contents"]
    told = json.loads(told_file.read_text())
    assert "that was the eighth step" in told["failed"]
    assert min(told["heard"]) > 2, "began anew"
    assert max(told["heard"]) == 6
    names = [entry["Key"] for entry in found]
    kept = {name.split("/")[3] for name in names if "/checkpoint_20" in name}
    assert len(kept) == 2, "more than the last two checkpoints stayed"
    for part in ("progress.json", "best/encoder/model.safetensors", "resume/model.safetensors"):
        assert any(name.endswith(part) for name in names), part
    assert "best/encoder/config.json" in told["best"], "the best is brought back here"
