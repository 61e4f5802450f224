"""The server around the executor's service: mutual TLS, limits, health, and an end that loses nothing."""

import asyncio
import gc
import json
import logging
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from executor.adapters.certificates import CertificateFiles
from executor.entrypoints.grpc_revocations import RevocationPort
from executor.entrypoints.grpc_service import ExecutorService
from executor.entrypoints.health_port import Checks, HealthPort
from executor.runner.service import ExecutorCore
from executor.settings import Settings, SettingsError
from gonogo.grpc_credentials import mutual_tls
from gonogo.grpc_requests import reading
from gonogo.v1 import executor_pb2, executor_pb2_grpc

MIB: Final = 1024 * 1024
MAX_MESSAGE: Final = 64 * MIB + MIB  # a document of the largest size, and what travels with it
OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # A connection is asked to go once its calls have ended, so that nobody stays on an old certificate.
    ("grpc.max_connection_age_ms", 3600 * 1000),
)
MAX_CALLS: Final = 1024
WATCHDOG_SECONDS: Final = 5.0
GARBAGE_THRESHOLDS: Final = (50_000, 20, 20)
SERVICE: Final = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name

log = logging.getLogger(__name__)


async def serve(core: ExecutorCore, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then end: no new calls, watchers sent off, what runs gets its grace.

    Raises:
        ExecutorError: the address or the certificates can not be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = ExecutorService(core)
    server, checks, port = build_server(service, settings)
    health_port = HealthPort(checks, settings.health_listen)
    revocations = RevocationPort(
        core, settings.revocation_listen, lambda: mutual_tls(CertificateFiles(settings.tls, "executor"))
    )
    await server.start()
    health_address = await health_port.start()
    revocation_address = await revocations.start()
    for name in ("", SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    host = settings.listen.rpartition(":")[0]
    _settle_garbage()
    _announce(
        settings.ready_file, {"address": f"{host}:{port}", "health": health_address, "revocations": revocation_address}
    )
    await stop.wait()
    _end_for_certain(settings.grace_seconds)
    await checks.enter_graceful_shutdown()
    service.drain()
    await server.stop(settings.grace_seconds)
    await revocations.stop(settings.grace_seconds)
    await health_port.stop()
    await asyncio.to_thread(core.drain, settings.grace_seconds)


def _settle_garbage() -> None:
    """Take what was made up to now, which stays to the end, out of the garbage collector's sight.

    A call makes hundreds of objects that go without the collector's help, messages and documents. With its usual
    thresholds it walks over all modules and descriptors again and again for their sake.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def build_server(
    service: ExecutorService, settings: Settings
) -> tuple[grpc.aio.Server, health.aio.HealthServicer, int]:
    """Build a server that listens and is not started yet; returns it with its health and its port.

    Raises:
        ExecutorError: the address or the certificates can not be used.
    """
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(service, reading(server))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(Checks(checks), server)
    if settings.reflection:
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_secure_port(settings.listen, mutual_tls(CertificateFiles(settings.tls, "executor")))
    except RuntimeError as error:
        raise SettingsError(f"can not listen on {settings.listen}: {error}", "choose another --listen") from error
    return server, checks, port


def _announce(ready_file: Path | None, addresses: Mapping[str, str]) -> None:
    """Tell where it listens, under the name of each listener that is on."""
    line = json.dumps({**{name: address for name, address in addresses.items() if address}, "pid": os.getpid()})
    log.info("ready: %s", line)
    if ready_file is None:
        return
    ready_file.parent.mkdir(parents=True, exist_ok=True)
    new = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
    new.write_text(line + "\n", encoding="utf-8")
    new.replace(ready_file)


def _end_for_certain(grace_seconds: float) -> None:
    """End the process even if something hangs; whatever runs then is told as unknown at the next start."""
    watchdog = threading.Timer(2 * grace_seconds + WATCHDOG_SECONDS, os._exit, args=(1,))
    watchdog.daemon = True
    watchdog.start()
