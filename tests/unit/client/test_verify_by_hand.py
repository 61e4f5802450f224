"""docs/verify.md: every command on that page is run on a bundle, by a shell that stops at the first that fails."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from client.bundle_file import bundle_json, bundle_text
from gonogo.digests import digest
from gonogo.signatures import new_signing_key
from tests.unit.client.proof_house import ProofHouse

PAGE = Path(__file__).parents[3] / "docs" / "verify.md"
TOOLS = ("bash", "jq", "openssl", "ssh-keygen", "sha256sum", "base64", "xxd", "fold")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
BLOCKS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"make setup installs: {', '.join(MISSING)}")


def by_hand(folder: Path, bundle: str, key: str) -> subprocess.CompletedProcess[str]:
    """Run the page's commands in a folder that holds the two files it asks for."""
    (folder / "mission.json").write_text(bundle)
    (folder / "executor.pub").write_text(f"{key} somebody's comment\n")
    blocks = BLOCKS.findall(PAGE.read_text("utf-8"))
    assert len(blocks) == 9
    script = "set -euo pipefail\n" + "\n".join(blocks)
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def house() -> ProofHouse:
    return ProofHouse()


def test_every_command_of_the_page_holds_on_an_honest_bundle(tmp_path: Path, house: ProofHouse) -> None:
    """The page proves digests, signatures, an approval, the checkpoint and the receipt's place in the log."""
    ran = by_hand(tmp_path, bundle_text(house.bundle()), house.keys.executor.public.line)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("holds: ") == 17
    assert ran.stdout.count("Signature Verified Successfully") == 4
    assert 'Good "gonogo-approval" signature for alice' in ran.stdout
    assert "is said to be completed with outcome success" in ran.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("new content", "old content", "the report is about this plan"),
        ("OUTCOME_SUCCESS", "OUTCOME_PARTIAL", "Signature Verification Failure"),
        ("nonce-alice", "nonce-malice", "incorrect signature"),
        ('\\"last_sequence\\":4', '\\"last_sequence\\":5', "the receipt's leaf is in the log"),
    ],
)
def test_the_page_finds_what_was_altered(tmp_path: Path, house: ProofHouse, old: str, new: str, said: str) -> None:
    """Each step of the page fails on a bundle that is altered where it looks."""
    text = bundle_text(house.bundle())
    assert old in text
    ran = by_hand(tmp_path, text.replace(old, new, 1), house.keys.executor.public.line)
    assert ran.returncode != 0
    assert said.lower() in (ran.stdout + ran.stderr).lower()


def test_the_page_believes_only_the_key_that_was_brought(tmp_path: Path, house: ProofHouse) -> None:
    """A bundle by another executor fails at its first signature, whatever key it names."""
    ran = by_hand(tmp_path, bundle_text(house.bundle()), new_signing_key().public.line)
    assert ran.returncode != 0
    assert "holds: the executor signed" not in ran.stdout


def test_the_page_reads_characters_as_they_were_signed(tmp_path: Path) -> None:
    """Text outside of ASCII, quotes and backslashes come out of the bundle as the bytes that were sealed."""

    def edit(plan: object) -> None:
        plan.objective = 'Grüße "drüben" \\ 🚀 \u202e'  # type: ignore[attr-defined]  # a plan before it is sealed

    house = ProofHouse(edits={"plan": edit})
    bundle = house.bundle()
    assert json.loads(json.dumps(bundle_json(bundle)))["documents"]["plan"]["digest"] == digest(house.plan.body)
    ran = by_hand(tmp_path, bundle_text(bundle), house.keys.executor.public.line)
    assert ran.returncode == 0, ran.stderr
