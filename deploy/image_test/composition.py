"""Reading compose.yaml, as far as it is used here, so that what is tested is what is deployed.

An engine without a compose plugin is enough; and what this does not know is refused, not left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
KNOWN = frozenset(
    {
        *("image", "user", "read_only", "cap_drop", "security_opt", "pids_limit", "mem_limit", "tmpfs", "pull_policy"),
        *("restart", "stop_grace_period", "depends_on", "environment", "networks", "ports", "volumes", "healthcheck"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network and, where it has one, the addresses that containers get."""

    internal: bool
    subnet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: how its container is made, and how it is asked for its health."""

    image: str
    options: tuple[str, ...]
    networks: Mapping[str, str]
    health: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What compose.yaml says."""

    services: Mapping[str, Service]
    networks: Mapping[str, Network]


def read(variables: Mapping[str, str], *files: Path) -> Composition:
    """Read a compose file with these variables, and others laid over it.

    Raises:
        ValueError: it holds what this reader does not know.
    """
    content = _content(files[0], variables)
    for file in files[1:]:
        laid_over = _content(file, variables)
        for name, changed in laid_over["services"].items():
            content["services"][name] = _merged(content["services"][name], changed)
        content["networks"] |= laid_over.get("networks", {})
    return Composition(
        services={name: _service(name, one) for name, one in content["services"].items()},
        networks={name: _network(one or {}) for name, one in content["networks"].items()},
    )


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one service over another as compose does: names and lists are put together, all else is replaced."""
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(above[name], dict):
            merged[name] = {**below[name], **above[name]}
        elif isinstance(above[name], list):
            merged[name] = list(dict.fromkeys([*below[name], *above[name]]))
    return merged


def _content(file: Path, variables: Mapping[str, str]) -> Any:
    text = VARIABLE.sub(lambda match: variables.get(match[1], match[2] or ""), file.read_text(encoding="utf-8"))
    return yaml.safe_load(text)


def _network(content: Mapping[str, Any]) -> Network:
    addresses = content.get("ipam", {}).get("config", [{}])
    return Network(internal=bool(content.get("internal")), subnet=addresses[0].get("subnet", ""))


def _service(name: str, content: Mapping[str, Any]) -> Service:
    unknown = content.keys() - KNOWN
    if unknown:
        raise ValueError(f"{name}: {', '.join(sorted(unknown))} is not known to the image test")
    options = ["--user", content["user"], "--pids-limit", str(content["pids_limit"]), "--memory", content["mem_limit"]]
    options += ["--read-only"] if content["read_only"] else []
    options += [word for one in content["cap_drop"] for word in ("--cap-drop", one)]
    options += [word for one in content["security_opt"] for word in ("--security-opt", one)]
    options += [word for one in content["tmpfs"] for word in ("--tmpfs", one)]
    options += [word for key, value in content["environment"].items() for word in ("--env", f"{key}={value}")]
    options += [word for one in content["volumes"] for word in ("--mount", _mount(one))]
    options += [word for one in content.get("ports", ()) for word in ("--publish", one)]
    return Service(
        image=content["image"],
        options=tuple(options),
        networks={network: (one or {}).get("ipv4_address", "") for network, one in content["networks"].items()},
        health=tuple(content["healthcheck"]["test"][1:]),
    )


def _mount(content: Mapping[str, Any]) -> str:
    access = ",readonly" if content.get("read_only") else ""
    return f"type={content['type']},source={content['source']},target={content['target']}{access}"
