"""Checkpoints: C2SP signed notes, read strictly, and verified with nothing but openssl."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gonogo.merkle import leaf_hash
from gonogo.notes import (
    EXECUTOR,
    Checkpoint,
    NoteError,
    checkpoint_text,
    log_origin,
    open_note,
    sign_note,
    unverified_checkpoint,
)
from gonogo.signatures import SigningKey, new_signing_key

ORIGIN = log_origin(EXECUTOR, "box")
ROOT = leaf_hash(b"all of it")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return new_signing_key()


@pytest.fixture(scope="module")
def note(key: SigningKey) -> str:
    return sign_note(checkpoint_text(ORIGIN, 1234, ROOT), key, ORIGIN)


@pytest.mark.quick
def test_a_note_is_what_the_format_says(key: SigningKey, note: str) -> None:
    """Three lines of text, an empty one, and one signature line with the key's hash before the signature."""
    text, _, signature = note.partition("\n\n")
    assert text == f"gonogo.local/executor/box\n1234\n{base64.b64encode(ROOT).decode()}"
    lead, name, value = signature.removesuffix("\n").split(" ")
    assert (lead, name, len(base64.b64decode(value))) == ("—", ORIGIN, 4 + 64)
    assert open_note(note, key.public, ORIGIN) == Checkpoint(origin=ORIGIN, size=1234, root=ROOT)
    assert unverified_checkpoint(note, ORIGIN) == Checkpoint(origin=ORIGIN, size=1234, root=ROOT)


@pytest.mark.quick
def test_any_changed_character_is_refused(key: SigningKey, note: str) -> None:
    """No character of a note can be replaced, taken away or doubled."""
    for place in range(len(note)):
        replaced = "A" if note[place] != "A" else "B"
        for broken in (note[:place] + replaced + note[place + 1 :], note[:place] + note[place + 1 :]):
            with pytest.raises(NoteError):
                open_note(broken, key.public, ORIGIN)
        with pytest.raises(NoteError):
            open_note(note[:place] + note[place] + note[place:], key.public, ORIGIN)


@pytest.mark.quick
def test_another_key_name_or_log_is_refused(key: SigningKey, note: str) -> None:
    """A note holds for its own log under its own key only."""
    with pytest.raises(NoteError, match="not signed by the key"):
        open_note(note, new_signing_key().public, ORIGIN)
    other = log_origin(EXECUTOR, "other")
    with pytest.raises(NoteError, match="not a checkpoint of the log"):
        open_note(note, key.public, other)
    with pytest.raises(NoteError):
        open_note(sign_note(checkpoint_text(other, 1, ROOT), key, ORIGIN), key.public, ORIGIN)


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n01234\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n+5\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n\u0665\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n-1\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n{2**63}\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n5\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n5\n{base64.b64encode(ROOT).decode()}\nextension\n",
        f"{ORIGIN}\n5\n",
        "",
    ],
)
def test_another_form_of_a_checkpoint_is_refused(key: SigningKey, text: str) -> None:
    """Sizes in another writing, short roots and further lines are refused though the signature is good."""
    with pytest.raises(NoteError):
        open_note(sign_note(text, key, ORIGIN), key.public, ORIGIN)


@pytest.mark.quick
def test_what_no_checkpoint_can_say_is_not_written() -> None:
    """Names with white space or a plus, negative sizes and short roots make no text."""
    for origin, size, root in (("a b", 1, ROOT), ("a+b", 1, ROOT), ("", 1, ROOT), ("a", -1, ROOT), ("a", 1, b"")):
        with pytest.raises(NoteError):
            checkpoint_text(origin, size, root)


@needs_openssl
def test_openssl_verifies_a_note(key: SigningKey, note: str, tmp_path: Path) -> None:
    """The text before the empty line, the signature after four bytes of key hash, and the raw key are all it takes."""
    text, _, signature = note.partition("\n\n")
    (tmp_path / "text").write_text(text + "\n", encoding="utf-8")
    (tmp_path / "signature").write_bytes(base64.b64decode(signature.split(" ")[2])[4:])
    (tmp_path / "key.pem").write_bytes(key.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "text", "-sigfile"]
    done = subprocess.run([*command, "signature"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Signature Verified Successfully" in done.stdout, done.stderr
