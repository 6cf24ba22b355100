"""Checkpoints below an ``s3://`` address: a real server of that protocol on the loopback address,
and workers of a Ray that is started with its keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bert import save_tiny_bert

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_checkpoints_lie_on_s3_and_training_goes_on_from_there(tmp_path: Path) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    path = [*map(str, (HERE, HERE.parent, HERE.parent.parent))]
    environment = {**os.environ, **keys, "PYTHONPATH": os.pathsep.join(path)}
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="models")
    address = f"s3://models/here?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    model = save_tiny_bert(tmp_path / "tiny-bert")
    program = [sys.executable, str(HERE / "finetune_on_s3.py"), str(model), address]
    try:
        subprocess.run(
            [*program, str(tmp_path / "told.json")], env=environment, check=True, timeout=840
        )
        found = client.list_objects_v2(Bucket="models", Prefix="here/train/")["Contents"]
    finally:
        server.stop()
    told = json.loads((tmp_path / "told.json").read_text())
    assert "that was the eighth step" in told["failed"]
    assert min(told["heard"]) > 2, "began anew"
    assert max(told["heard"]) == 6
    names = [entry["Key"] for entry in found]
    kept = {name.split("/")[3] for name in names if "/checkpoint_20" in name}
    assert len(kept) == 2, "more than the last two checkpoints stayed"
    for part in ("progress.json", "best/encoder/model.safetensors", "resume/model.safetensors"):
        assert any(name.endswith(part) for name in names), part
    assert "best/encoder/config.json" in told["best"], "the best is brought back here"
