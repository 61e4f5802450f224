"""Steps that call a tool: of servers that the trust file names, with nothing but tools that it lists.

A dry run asks the server what the tool looks like, and calls nothing. The execution asks again, on the connection that
it then calls on, and goes on only where the tool is still the one of the report.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from executor.domain.errors import Fault, StepBlockedError, StepFailedError
from executor.domain.far_sides import McpServer
from executor.domain.plan import CallTool
from executor.domain.policy import Trust
from executor.domain.receipt import EffectState
from executor.domain.report import ToolEvidence
from executor.outside.addresses import NetworkRefusedError, parse_url, pin
from executor.outside.answers import canonical, told
from executor.outside.far_sides import not_done, unknown
from executor.outside.listed import SHOWN, check_installed, named, remarks, secret_text
from executor.outside.worker import Confinement, View, Worker, WorkerGoneError
from executor.runner.outside import Declared, Performed, Setting
from executor.runner.secrets import Secrets
from gonogo.digests import digest
from gonogo.safe_text import excerpt, safe_line
from gonogo.secret_shapes import REFERENCE

MODULE: Final = "executor.outside.mcp_worker"
NOT_SIMULATED: Final = "a tool does what its server makes of it; nobody can try that without doing it"
_DIGESTED: Final = ("name", "description", "inputSchema", "outputSchema", "annotations")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalls:
    """Handles steps of the kind `call_tool`."""

    trust: Callable[[], Trust]
    secrets: Secrets
    confinement: Confinement | None
    """None where bubblewrap does not work."""
    fixed: tuple[str, ...] = ()
    """What no server may change: the workspaces."""

    def declare(self, action: CallTool, setting: Setting) -> Declared:
        """Ask the server about the tool, and check the arguments against what it says; nothing is called.

        Raises:
            StepBlockedError: no such server or tool for this workspace, a secret that is not there, or an address
                that may not be reached.
            StepFailedError: PLAN_INVALID for arguments that do not fit; FETCH_FAILED for a server that does not answer.
        """
        check_installed("mcp")
        server, arguments = self._server(action, setting), arguments_of(action)
        self._resolved(arguments, setting)
        with self._worker(server, setting) as worker:
            try:
                found = worker.ask(self._question(action, server, arguments, setting))
            except WorkerGoneError as error:
                raise _no_answer(server, str(error), worker, setting) from None
        _check_answer(server, found, worker, setting)
        return _declared(action, arguments, found, setting)

    def perform(self, action: CallTool, expected: Declared, setting: Setting, key: str) -> Performed:
        """Ask once more, and call the tool where it is the one of the report.

        Raises:
            ExecutorError: it did not come to the call.
        """
        check_installed("mcp")
        server, arguments = self._server(action, setting), arguments_of(action)
        values = self._resolved(arguments, setting)
        called = False
        with self._worker(server, setting) as worker:
            try:
                found = worker.ask(self._question(action, server, arguments, setting))
                _check_answer(server, found, worker, setting)
                changed = _changed(expected, _declared(action, arguments, found, setting))
                if changed is not None:
                    return not_done(changed)
                called = True
                return _performed(server, worker.ask({"arguments": values, "key": key}), setting)
            except WorkerGoneError as error:
                if called:
                    return unknown(f"the call of {action.tool} on {server.name} broke off: {error}")
                raise _no_answer(server, str(error), worker, setting) from None

    def _server(self, action: CallTool, setting: Setting) -> McpServer:
        server = named(self.trust().servers, action.server, "server", setting)
        if action.tool not in server.tools:
            raise StepBlockedError(
                "FAR_SIDE_UNKNOWN",
                f"the trust file does not list the tool {excerpt(action.tool, SHOWN)!r} of server {server.name}",
                "have the executor's operator add it to the server's tools, or choose another",
            )
        return server

    def _resolved(self, value: Any, setting: Setting) -> Any:
        """Return a JSON value with secrets in the place of their references: texts that are nothing else."""
        if isinstance(value, dict):
            return {name: self._resolved(one, setting) for name, one in value.items()}
        if isinstance(value, list):
            return [self._resolved(one, setting) for one in value]
        if isinstance(value, str) and value.startswith(REFERENCE):
            return secret_text(self.secrets, value, setting)
        return value

    @contextmanager
    def _worker(self, server: McpServer, setting: Setting) -> Iterator[Worker]:
        ca_file = self.trust().network.ca_file
        view = self._program_view() if server.command else View(readable=tuple(filter(None, [ca_file])))
        seconds = min(server.seconds, setting.plan.scope.max_duration_seconds)
        with Worker(MODULE, seconds=seconds, cancel=setting.cancel, view=view, confinement=self.confinement) as worker:
            yield worker

    def _program_view(self) -> View:
        """Let the operator's program see what the operator has, but change no workspace and read no secret's file."""
        files = tuple(secret.file for secret in self.trust().secrets if secret.file)
        return View(whole=True, readable=self.fixed, hidden=files)

    def _question(self, action: CallTool, server: McpServer, arguments: Any, setting: Setting) -> Mapping[str, Any]:
        reached = self._reached(server, arguments, setting)
        return {"server": reached, "tool": action.tool, "arguments": arguments}

    def _reached(self, server: McpServer, arguments: Any, setting: Setting) -> Mapping[str, Any]:
        if server.command:
            return {"command": server.command, "env": self._resolved(dict(server.env), setting)}
        network = self.trust().network
        pinned = pin(parse_url(server.url), network.private_addresses, cancel=setting.cancel)
        if pinned.url.scheme != "https" and not pinned.is_private and _refers([dict(server.headers), arguments]):
            raise NetworkRefusedError(
                f"server {server.name} would be sent a secret without encryption", "have its url begin with https"
            )
        return {
            "url": str(pinned.url),
            "addresses": pinned.addresses,
            "headers": self._resolved(dict(server.headers), setting),
            "ca_file": network.ca_file,
            "seconds": server.seconds,
        }


def _refers(value: Any) -> bool:
    """Tell whether a JSON value holds a secret's reference."""
    if isinstance(value, dict | list):
        return any(map(_refers, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value.startswith(REFERENCE)


def arguments_of(action: CallTool) -> Mapping[str, Any]:
    """Read a tool's arguments.

    Raises:
        StepFailedError: PLAN_INVALID: they are no JSON object.
    """
    try:
        arguments = json.loads(action.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise StepFailedError(
            "PLAN_INVALID", f"the arguments of {action.tool!r} are no JSON object", 'write them as {"name": "value"}'
        )
    return arguments


def _declared(action: CallTool, arguments: Mapping[str, Any], found: Mapping[str, Any], setting: Setting) -> Declared:
    tool = found["tool"]
    description, _ = told(str(tool.get("description", "")).encode("utf-8", "replace"), setting.redactor)
    digested = {name: tool.get(name) for name in _DIGESTED}
    evidence = ToolEvidence(
        server=action.server,
        tool=action.tool,
        description=description,
        tool_digest=digest(setting.redactor.data(canonical(digested))),
        arguments_digest=digest(canonical(arguments)),
        says_read_only=(tool.get("annotations") or {}).get("readOnlyHint") is True,
        server_version=excerpt(safe_line(setting.redactor.text(str(found.get("server_version", "")))), SHOWN),
    )
    # As a compensation, this is all that a report keeps of it: so it names the very tool.
    why = f"{NOT_SIMULATED}; it describes itself as {evidence.tool_digest}"
    return Declared(evidence=evidence, not_simulated=why, digest=call_digest(evidence))


def call_digest(evidence: ToolEvidence) -> str:
    """Name a call: which tool of which server, as it was described, with which arguments."""
    return digest(canonical([evidence.server, evidence.tool, evidence.tool_digest, evidence.arguments_digest]))


def _changed(expected: Declared, found: Declared) -> Fault | None:
    """Return why the tool is not to be called, because it is not the one that was approved."""
    evidence = found.evidence
    if isinstance(expected.evidence, ToolEvidence) and isinstance(evidence, ToolEvidence):
        if call_digest(expected.evidence) == call_digest(evidence):
            return None
        name = f"{evidence.tool} of server {evidence.server}"
    else:
        name = "it"
    return Fault(
        reason="TOOL_CHANGED",
        message=f"{safe_line(name)} is not what the report describes",
        remedy="look at what the tool says of itself now, and give a repair plan: gonogo repair MISSION -f FILE",
    )


def _check_answer(server: McpServer, found: Mapping[str, Any], worker: Worker, setting: Setting) -> None:
    fault = found.get("fault")
    if fault is None:
        return
    message = f"server {server.name}: {safe_line(str(fault['message']))}"
    if fault["reason"] == "FETCH_FAILED":
        message += remarks(worker.remarks, setting.redactor)
    raise StepFailedError(fault["reason"], message, fault["remedy"] or f"look at the server {server.name}")


def _no_answer(server: McpServer, why: str, worker: Worker, setting: Setting) -> StepFailedError:
    said = remarks(worker.remarks, setting.redactor)
    return StepFailedError(
        "FETCH_FAILED", f"server {server.name} gave no answer: {why}{said}", f"look at the server {server.name}"
    )


def _performed(server: McpServer, answer: Mapping[str, Any], setting: Setting) -> Performed:
    """Say what came of the call."""
    if "unknown" in answer:
        return unknown(f"server {server.name} did not answer the call: {safe_line(str(answer['unknown']))}")
    if "refused" in answer:
        message = f"server {server.name} did not take the call: {safe_line(str(answer['refused']))}"
        return not_done(
            Fault(
                reason="TOOL_FAILED",
                message=message,
                remedy="look at the server, then gonogo retry MISSION, or give a repair plan with gonogo repair",
            )
        )
    texts, structured = answer["texts"], answer["structured"]
    shown = "\n".join(texts).encode("utf-8", "replace") if texts or structured is None else canonical(structured)
    excerpted, _ = told(shown, setting.redactor)
    whole = {"is_error": answer["is_error"], "texts": texts, "structured": structured, "others": answer["others"]}
    summary = f"server {server.name} answered{_counted(answer)}"
    fault = None
    if answer["is_error"]:
        fault = Fault(
            reason="TOOL_FAILED",
            message=f"the tool of server {server.name} answered with an error: "
            f"{excerpt(safe_line(setting.redactor.text(' '.join(texts))), SHOWN)}",
            remedy="look at its answer; it may have done a part of what it was asked",
        )
    return Performed(
        state=EffectState.DONE,
        summary=summary,
        answer=excerpted,
        answer_digest=digest(setting.redactor.data(canonical(whole))),
        fault=fault,
    )


def _counted(answer: Mapping[str, Any]) -> str:
    """Name what an answer has and is not shown."""
    others = [f"{count} {safe_line(kind)}" for kind, count in sorted(answer["others"].items())]
    left_out = f", not shown: {', '.join(others)}" if others else ""
    return left_out + (", cut at its length" if answer["cut"] else "")
