"""Talking to the executor directly, as a compromised orchestrator would: with the orchestrator's own certificate."""

import json
from pathlib import Path

import grpc
import grpc.aio


def executor_channel(state: Path, identity: str = "orchestrator") -> grpc.aio.Channel:
    """Open a channel to the executor with one of the state directory's certificates."""
    tls = state / "tls"
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(tls / "ca.pem").read_bytes(),
        private_key=(tls / f"{identity}.key").read_bytes(),
        certificate_chain=(tls / f"{identity}.pem").read_bytes(),
    )
    address = json.loads((state / "run" / "executor.json").read_text())["address"]
    return grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "executor")])
