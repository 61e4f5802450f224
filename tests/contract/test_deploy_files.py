"""The files of deploy/ keep the boundary: what compose.yaml gives to whom, what an image holds, what the page says."""

import json
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gonogo import health_check

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SERVICES = ("executor", "orchestrator")
# What building a sandbox inside of a container takes; commands in that sandbox are denied these by its own filter.
FOR_SANDBOXES = {
    *("mount", "umount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "clone3", "setns", "sethostname"),
}


@pytest.fixture(scope="module")
def composition() -> Any:
    """Return what compose.yaml says."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def containerfile() -> str:
    """Return the Containerfile's text."""
    return (ROOT / "Containerfile").read_text()


def mounts(composition: Any, service: str) -> dict[str, Any]:
    """Return a service's volumes by where they are mounted."""
    return {one["target"]: one for one in composition["services"][service]["volumes"]}


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined(composition: Any, name: str) -> None:
    """A service is an ordinary user on a read-only root file system, with no capability and no way to get one."""
    service = composition["services"][name]
    assert service["user"] == "65532:65532"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"} & service.keys()
    assert all({"noexec", "nosuid", "nodev"} <= set(one.partition(":")[2].split(",")) for one in service["tmpfs"])


def test_the_executor_is_on_internal_networks_only(composition: Any) -> None:
    """The executor has no way out, no published port, and no network in common with people's clients."""
    executor, orchestrator = (composition["services"][name] for name in SERVICES)
    networks = composition["networks"]
    assert all(networks[name]["internal"] is True for name in executor["networks"])
    assert not {"ports", "expose"} & executor.keys()
    open_ones = {name for name, network in networks.items() if not (network or {}).get("internal")}
    assert open_ones == {"front"}
    assert set(executor["networks"]) & set(orchestrator["networks"]) == {"control"}


def test_each_listener_of_the_executor_is_on_its_own_network(composition: Any) -> None:
    """Whoever is let onto the approvers' network can not reach the port that executes."""
    executor = composition["services"]["executor"]
    environment, networks = executor["environment"], executor["networks"]
    assert environment["GONOGO_LISTEN"] == f"{networks['control']['ipv4_address']}:50051"
    assert environment["GONOGO_REVOCATION_LISTEN"] == f"{networks['revocation']['ipv4_address']}:50053"
    assert environment["GONOGO_HEALTH_LISTEN"].startswith("127.0.0.1:")


def test_the_orchestrator_publishes_to_this_machine_only(composition: Any) -> None:
    """Nothing is open to the world unless its operator opens it."""
    assert all(port.startswith("127.0.0.1:") for port in composition["services"]["orchestrator"]["ports"])


def test_no_volume_is_shared(composition: Any) -> None:
    """Keys, trust file, ledger, anchor and workspaces are the executor's alone; a missing directory is an error."""
    sources = [one["source"] for name in SERVICES for one in mounts(composition, name).values()]
    assert len(sources) == len(set(sources))
    assert all(
        one["bind"]["create_host_path"] is False for name in SERVICES for one in mounts(composition, name).values()
    )
    assert all("/executor/" not in one["source"] for one in mounts(composition, "orchestrator").values())
    assert all(mounts(composition, name)["/var/lib/gonogo"]["read_only"] is True for name in SERVICES)


def test_the_anchor_is_outside_of_the_backup_set(composition: Any) -> None:
    """What is backed up, GONOGO_DATA, does not hold the anchor."""
    executor = composition["services"]["executor"]
    place = Path(executor["environment"]["GONOGO_ANCHOR"]).parent
    assert "GONOGO_DATA" not in mounts(composition, "executor")[str(place)]["source"]


def test_the_staging_is_beside_the_workspace(composition: Any) -> None:
    """A commit renames: staging and workspace are on one volume, and neither is inside the other."""
    environment = composition["services"]["executor"]["environment"]
    workspace, staging = (Path(environment[name].partition("=")[2]) for name in ("GONOGO_WORKSPACE", "GONOGO_STAGING"))
    assert workspace.is_relative_to("/workspaces")
    assert staging.is_relative_to("/workspaces")
    assert not workspace.is_relative_to(staging)
    assert not staging.is_relative_to(workspace)


def test_running_commands_takes_no_privilege(composition: Any) -> None:
    """The variant for commands changes the image and two confinements, and adds neither capability nor network."""
    changed = yaml.safe_load((DEPLOY / "compose.commands.yaml").read_text())["services"]
    assert set(changed) == {"executor"}
    assert set(changed["executor"]) == {"image", "pids_limit", "mem_limit", "security_opt"}
    assert "no-new-privileges:true" in changed["executor"]["security_opt"]
    assert changed["executor"]["image"] != composition["services"]["executor"]["image"]


def test_reaching_outside_takes_a_way_out_and_nothing_else(composition: Any) -> None:
    """The variant for it changes the image and adds one network, on which the executor listens nowhere."""
    changed = yaml.safe_load((DEPLOY / "compose.live.yaml").read_text())
    executor = changed["services"]["executor"]
    assert set(changed["services"]) == {"executor"}
    assert set(executor) == {"image", "networks"}
    assert executor["networks"] == changed["networks"] == {"outside": {}}
    assert "outside" not in composition["networks"]
    listening = {
        name: text for name, text in composition["services"]["executor"]["environment"].items() if "LISTEN" in name
    }
    assert not any(text.startswith(("0.0.0.0", ":", "[::]")) for text in listening.values())


def test_the_container_s_filter_denies_what_the_sandbox_s_does() -> None:
    """All that a command may not ask of the kernel the executor may not either, but for what makes sandboxes."""
    profile = json.loads((DEPLOY / "seccomp/container.json").read_text())
    policy = tomllib.loads((DEPLOY / "seccomp/policy.toml").read_text())
    denied = {name for entry in profile["syscalls"] for name in entry["names"]}
    assert all(entry["action"] == "SCMP_ACT_ERRNO" for entry in profile["syscalls"])
    assert {name for entry in policy["deny"] for name in entry["calls"]} - denied == FOR_SANDBOXES
    assert all(not one["subArchitectures"] for one in profile["archMap"])


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_made_of_its_own_part(containerfile: str, name: str) -> None:
    """A service's image starts from nothing and takes its own package, its own lock file, and the contract."""
    stages = dict(re.findall(r"(?ms)^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", containerfile))
    foreign = next(one for one in SERVICES if one != name)
    assert f"FROM scratch AS {name}\nCOPY --from={name}-root /image /\n" in containerfile
    assert "USER 65532:65532" in stages[name]
    assert "RUN" not in stages[name]
    assert "\nARG EXTRA=\n" in containerfile  # the small one is what is built by default
    assert f"requirements/{name}.lock" in stages[f"{name}-root"].replace("${EXTRA}", "")
    assert foreign not in stages[f"{name}-root"] + stages[name]
    assert not re.search(r"\b(client|tests)\b", stages[f"{name}-root"])


@pytest.mark.parametrize("name", SERVICES)
def test_the_health_check_is_a_module_of_the_service(composition: Any, name: str) -> None:
    """A health check needs neither a shell nor a certificate, and asks the port that answers nothing else."""
    command = composition["services"][name]["healthcheck"]["test"]
    assert command == ["CMD", "/usr/bin/python3", "-m", health_check.__name__]


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("0.0.0.0:50052", "127.0.0.1:50052"),
        ("127.0.0.1:50052", "127.0.0.1:50052"),
        (":50052", "127.0.0.1:50052"),
        ("[::]:50052", "127.0.0.1:50052"),
        ("", ""),
    ],
)
def test_a_health_check_asks_where_the_service_listens(listen: str, asked: str) -> None:
    """A listener on all addresses is asked on the loopback; without one there is nothing to ask."""
    assert health_check.health_address({"GONOGO_HEALTH_LISTEN": listen}) == asked


def test_a_health_check_tells_what_the_service_says() -> None:
    """Healthy is only who answers that it serves: not one that drains, not one that is gone."""
    server = grpc.server(ThreadPoolExecutor(1))
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    assert health_check.serves(address)
    checks.enter_graceful_shutdown()
    assert not health_check.serves(address)
    server.stop(None).wait()
    assert not health_check.serves(address)


def test_the_split_on_the_page_keeps_private_keys_apart() -> None:
    """The documented commands bring each private key to one place, and the authority's to none."""
    page = (ROOT / "docs/deploy.md").read_text()
    script = page.partition("## The volumes\n")[2].partition("\n## ")[0]
    copies = re.findall(r"(?m)^cp (\S.*) (\S+)$", script)
    places = {"executor.key": "executor/trust", "orchestrator.key": "orchestrator/identity", "client.key": "person"}
    for key, place in places.items():
        assert [target for sources, target in copies if key in sources] == [f'"$DATA"/{place}/tls/']
    assert not any("ca.key" in sources for sources, _ in copies)
    assert ".key" not in page.partition("--renew-certificates\n")[2].partition("```")[0]
    assert [target for sources, target in copies if "{approver," in sources] == ['"$DATA"/person/keys/']
