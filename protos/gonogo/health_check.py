"""`python -m gonogo.health_check`: ends with 0 if the service of this container says that it serves.

For a container engine's health check in an image that has nothing else to run. It asks the plaintext port that answers
nothing but this (`GONOGO_HEALTH_LISTEN`), so it needs no certificate.
"""

import os
import sys
from collections.abc import Mapping

SECONDS = 3.0
ANY_ADDRESS = frozenset({"", "0.0.0.0", "[::]"})  # noqa: S104 - what a listener is bound to, not a bind


def main() -> int:
    """Ask once."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    address = health_address(os.environ)
    if not address:
        sys.stderr.write("GONOGO_HEALTH_LISTEN is not set: there is no health port to ask\n")
        return 1
    return 0 if serves(address) else 1


def health_address(environment: Mapping[str, str]) -> str:
    """Return where to ask, from where the service listens; empty where it does not."""
    host, separator, port = environment.get("GONOGO_HEALTH_LISTEN", "").rpartition(":")
    if not separator:
        return ""
    return f"{'127.0.0.1' if host in ANY_ADDRESS else host}:{port}"


def serves(address: str) -> bool:
    """Whether the service there answers that it serves."""
    import grpc  # noqa: PLC0415 - gRPC reads its environment when it is first imported
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - see above

    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        except grpc.RpcError as error:
            sys.stderr.write(f"{address} does not answer: {error.code().name}\n")
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(main())
