"""Signing by an ssh-agent, which holds the key and never hands it out.

A small client of the agent's protocol (draft-ietf-sshm-ssh-agent): it lists the keys and asks for a signature, nothing
else. The agent runs as the approver, and still everything that it answers is bounded and checked: a signature leaves
this side only after it was verified like the executor will.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from client.errors import KeyFileError
from gonogo.signatures import PublicKey, SignatureError, from_ssh_signature, to_be_signed, verify
from gonogo.ssh_keys import WireReader, wire_text

VARIABLE: Final = "SSH_AUTH_SOCK"
FAILURE: Final = 5
REQUEST_IDENTITIES: Final = 11
IDENTITIES_ANSWER: Final = 12
SIGN_REQUEST: Final = 13
SIGN_RESPONSE: Final = 14
# OpenSSH's agent takes and sends no more than this in one message.
MAX_MESSAGE: Final = 256 * 1024
LIST_SECONDS: Final = 5.0
# Somebody may have to find the security key, touch it, type its PIN or answer the agent's question.
SIGN_SECONDS: Final = 120.0
REASON: Final = "KEY_UNUSABLE"

T = TypeVar("T")


class AgentRefusedError(KeyFileError):
    """The agent answered that it will not do it, and says no more than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAgent:
    """One agent, by its socket; each request is a connection of its own."""

    path: Path
    list_seconds: float = LIST_SECONDS
    sign_seconds: float = SIGN_SECONDS

    @classmethod
    def from_environment(cls) -> "SshAgent":
        """Return the agent that the environment names.

        Raises:
            KeyFileError: it names none.
        """
        path = os.environ.get(VARIABLE)
        if not path:
            raise _no_agent(f"no ssh-agent is known: {VARIABLE} is not set")
        return cls(path=Path(path))

    def blobs(self) -> tuple[bytes, ...]:
        """Return the public keys that the agent holds, whatever their types, in SSH's wire format.

        Raises:
            KeyFileError: there is no agent, or it does not answer as an agent does.
        """
        answer = self._ask(bytes([REQUEST_IDENTITIES]), IDENTITIES_ANSWER, self.list_seconds)
        return _read(answer, _identities)

    def sign(self, public: PublicKey, data: bytes) -> bytes:
        """Return the agent's signature over some data, in SSH's own form.

        Raises:
            KeyFileError: there is no agent, it refused, or it does not answer as an agent does.
        """
        request = bytes([SIGN_REQUEST]) + wire_text(public.blob) + wire_text(data) + (0).to_bytes(4, "big")
        try:
            answer = self._ask(request, SIGN_RESPONSE, self.sign_seconds)
        except AgentRefusedError:
            raise _refused(public) from None
        return _read(answer, WireReader.text)

    def _ask(self, request: bytes, wanted: int, seconds: float) -> bytes:
        if len(request) > MAX_MESSAGE:
            raise KeyFileError(REASON, "the document is too large for an ssh-agent", "sign with a private key file")
        try:
            answer = self._exchange(wire_text(request), time.monotonic() + seconds)
        except TimeoutError:
            message = f"the ssh-agent at {self.path} did not answer within {seconds:g} s"
            remedy = "answer its question, or touch the security key, and try again"
            raise KeyFileError(REASON, message, remedy) from None
        except OSError as error:
            raise _no_agent(f"the ssh-agent at {self.path} can not be reached: {error.strerror or error}") from None
        if answer[:1] == bytes([FAILURE]):
            raise AgentRefusedError(REASON, "the ssh-agent refused", "unlock it with ssh-add -X")
        if answer[:1] != bytes([wanted]):
            raise _no_agent(f"what answers at {self.path} does not speak the ssh-agent's protocol")
        return answer[1:]

    def _exchange(self, request: bytes, deadline: float) -> bytes:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as link:
            link.settimeout(_left(deadline))
            link.connect(os.fspath(self.path))
            link.sendall(request)
            length = int.from_bytes(_receive(link, 4, deadline), "big")
            # An answer that is too long is read as one of no type, which nobody waits for.
            return _receive(link, length, deadline) if length <= MAX_MESSAGE else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKey:
    """A key that an agent holds."""

    public: PublicKey
    agent: SshAgent

    def sign(self, scheme: str, media_type: str, body: bytes) -> bytes:
        """Have the agent sign a sealed document.

        Raises:
            KeyFileError: the agent is gone, refused, or answered with something that is no good signature.
            SignatureError: the scheme is not known, or the key can not sign in it.
        """
        answer = self.agent.sign(self.public, to_be_signed(scheme, self.public, media_type, body))
        return checked(
            self.public, scheme, lambda: from_ssh_signature(scheme, self.public, answer), media_type, body, "ssh-agent"
        )


def key_in_agent(public: PublicKey, agent: SshAgent | None = None) -> AgentKey:
    """Return a key that the agent (of the environment) holds.

    Raises:
        KeyFileError: there is no agent, or it does not hold the key.
    """
    asked = agent or SshAgent.from_environment()
    if public.blob not in asked.blobs():
        message = f"the ssh-agent does not hold the key {public.key_id}"
        raise KeyFileError(REASON, message, "add it with ssh-add FILE, or give the private key file with --key")
    return AgentKey(public=public, agent=asked)


def checked(
    public: PublicKey, scheme: str, made: Callable[[], bytes], media_type: str, body: bytes, maker: str
) -> bytes:
    """Return a signature that somebody else made, once it was verified as the executor will.

    Raises:
        KeyFileError: it does not hold, as where nobody touched the security key.
    """
    try:
        signature = made()
        verify(public, scheme=scheme, signature=signature, media_type=media_type, body=body, extra=b"")
    except SignatureError as error:
        remedy = "nothing was handed in; a security key must be made without -O no-touch-required, and be touched"
        raise KeyFileError(REASON, f"what {maker} signed can not be used: {error}", remedy) from None
    return signature


def _identities(reader: WireReader) -> tuple[bytes, ...]:
    # Each key takes at least its two lengths, so that the count can not ask for more than the message holds.
    found = []
    for _ in range(reader.number()):
        found.append(reader.text())
        reader.text()
    return tuple(found)


def _read(answer: bytes, read: Callable[[WireReader], T]) -> T:
    reader = WireReader(answer)
    try:
        value = read(reader)
        reader.end()
    except SignatureError as error:
        raise _no_agent(f"the ssh-agent's answer can not be read: {error}") from None
    return value


def _receive(link: socket.socket, count: int, deadline: float) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        link.settimeout(_left(deadline))
        piece = link.recv(count - len(pieces))
        if not piece:
            raise ConnectionResetError("it hung up")
        pieces += piece
    return bytes(pieces)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refused(public: PublicKey) -> KeyFileError:
    what = "security key" if public.hardware else "key"
    message = f"the ssh-agent refused to sign with the {what} {public.key_id}"
    remedy = "confirm its question, unlock it with ssh-add -X"
    remedy += ", plug the security key in and touch it" if public.hardware else ", or give the private key file"
    return KeyFileError(REASON, message, remedy)


def _no_agent(message: str) -> KeyFileError:
    remedy = "start one and add the key: eval $(ssh-agent); ssh-add FILE; or give the private key file with --key"
    return KeyFileError(REASON, message, remedy)
