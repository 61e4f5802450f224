"""Commands and test runs: what goes into the sandbox, and what its answer means."""

from collections.abc import Callable
from dataclasses import dataclass

from executor.domain.cancel import NEVER, Cancel
from executor.domain.errors import StepFailedError
from executor.domain.plan import RunCommand, RunTests, TestExpectation
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import CommandEvidence, Excerpt, TestEvidence, TestVerdict
from executor.sandbox.sandbox import CapturedOutput, CommandResult, CommandSpec, Gateway, SandboxSession
from executor.steps.junit import TestCounts, read_junit
from gonogo.safe_text import excerpt, shown_argv

OnOutput = Callable[[str, bytes], None]

EXCERPT_BYTES = 4096
SHOWN_OUTPUT = 600
TIME_REMEDY = "raise scope.max_duration_seconds, or let the program do less"
NO_COUNTS = TestCounts(tests=0, failures=0, errors=0, skipped=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRun:
    """One program to run in an open sandbox session."""

    session: SandboxSession
    timeout_seconds: int
    on_output: OnOutput
    redactor: Redactor = NO_SECRETS
    gateway: Gateway | None = None
    told: Callable[[], tuple[str, ...]] = tuple
    """Returns what the program reached through the gateway, a line each."""
    cancel: Cancel = NEVER


def run_command(run: SandboxRun, action: RunCommand) -> tuple[CommandEvidence, StepFailedError | None]:
    """Run a command; its changes stay in the session's copy. The error says why it did not succeed."""
    result = _run(run, action, collect=(), discard=False)
    evidence = _evidence(result)
    if result.exit_code is not None and not result.timed_out and result.exit_code in (action.success_codes or (0,)):
        return evidence, None
    remedy = "make the command succeed, or name the exit code in success_codes"
    return evidence, _failed(action, result, TIME_REMEDY if result.timed_out else remedy)


def run_tests(run: SandboxRun, action: RunTests) -> tuple[TestEvidence, StepFailedError | None]:
    """Run tests; what they write is thrown away. The error says why the plan's expectation is not met."""
    junit = action.junit.encode()
    result = _run(run, action, collect=(junit,) if junit else (), discard=True)
    if result.timed_out:
        return _tests(result, NO_COUNTS, TestVerdict.FAIL), _failed(action, result, TIME_REMEDY)
    if junit and junit not in result.collected:
        return _tests(result, NO_COUNTS, TestVerdict.FAIL), StepFailedError(
            "JUNIT_MISSING",
            f"the test run wrote no {action.junit} ({_ending(result)}){_shown_output(result)}",
            "let the test runner write JUnit XML there, such as pytest --junitxml=FILE, or leave junit out",
        )
    counts = read_junit(run.redactor.data(result.collected[junit])) if junit else NO_COUNTS
    passed = result.exit_code == 0 and not counts.failures and not counts.errors
    evidence = _tests(result, counts, TestVerdict.PASS if passed else TestVerdict.FAIL)
    if _expected(action.expect, evidence.verdict):
        return evidence, None
    return evidence, _failed(action, result, "repair what the tests show, or change what the plan expects")


def _expected(expect: TestExpectation, verdict: TestVerdict) -> bool:
    return expect is TestExpectation.ANY or expect.value == verdict.value


def _run(run: SandboxRun, action: RunCommand | RunTests, *, collect: tuple[bytes, ...], discard: bool) -> CommandResult:
    spec = CommandSpec(
        argv=action.argv,
        cwd=action.cwd,
        env=action.env,
        discard_changes=discard,
        collect=collect,
        timeout_seconds=run.timeout_seconds,
        redactor=run.redactor,
        gateway=run.gateway,
        cancel=run.cancel,
    )
    result = run.session.run(spec, run.on_output)
    for line in run.told():
        run.on_output("stderr", f"[network] {line}\n".encode())
    return result


def _tests(result: CommandResult, counts: TestCounts, verdict: TestVerdict) -> TestEvidence:
    return TestEvidence(
        verdict=verdict,
        command=_evidence(result),
        tests=counts.tests,
        failures=counts.failures,
        errors=counts.errors,
        skipped=counts.skipped,
        cases=counts.cases,
    )


def _evidence(result: CommandResult) -> CommandEvidence:
    return CommandEvidence(
        exit_code=result.exit_code,
        signal=result.signal or 0,
        timed_out=result.timed_out,
        stdout=_excerpt(result.stdout),
        stderr=_excerpt(result.stderr),
    )


def _excerpt(output: CapturedOutput) -> Excerpt:
    """Keep the beginning and the end; what lies between is counted and covered by the digest."""
    kept = output.head if output.truncated else output.head + output.tail
    if not output.truncated and len(kept) <= EXCERPT_BYTES:
        head, tail = kept, b""
    else:
        end = output.tail if output.truncated else kept
        head, tail = kept[: EXCERPT_BYTES // 2], end[-EXCERPT_BYTES // 2 :]
    return Excerpt(
        head=head.decode("utf-8", "replace"),
        tail=tail.decode("utf-8", "replace"),
        total_bytes=output.total,
        digest=output.digest,
        truncated=bool(tail),
    )


def _failed(action: RunCommand | RunTests, result: CommandResult, remedy: str) -> StepFailedError:
    reason = "COMMAND_FAILED" if isinstance(action, RunCommand) else "TESTS_UNEXPECTED"
    message = f"{shown_argv(action.argv)} {_ending(result)}{_shown_output(result)}"
    return StepFailedError(reason, message, result.hint or remedy)


def _ending(result: CommandResult) -> str:
    if result.timed_out:
        return "ran into the time limit"
    if result.killed_reason:
        return f"was ended: {result.killed_reason}"
    if result.exit_code is None:
        return f"was ended by signal {result.signal}"
    return f"ended with exit code {result.exit_code}"


def _shown_output(result: CommandResult) -> str:
    """Return the end of what the program said, which is where the cause usually stands."""
    for output in (result.stderr, result.stdout):
        text = (output.tail or output.head).decode("utf-8", "replace").strip()
        if text:
            return f"; it said: {excerpt(text[-SHOWN_OUTPUT:], SHOWN_OUTPUT)}"
    return ""
