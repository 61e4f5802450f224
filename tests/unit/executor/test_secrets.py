"""Where secrets come from, who gets one, and that the executor takes no plan and shows no object with one."""

import base64
import dataclasses
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.errors import RequestMalformedError
from executor.domain.policy import SecretSource
from executor.domain.redaction import MOST_BYTES, Secret
from executor.runner.secrets import Secrets, SecretUnavailableError, environment_of, inherited
from executor.workspace.objects import SMALL_BYTES
from tests.unit.executor.house import House
from tests.unit.executor.secret_house import CANARY, DEPLOY, MARKER, REFERENCE, VALUE, file, leaks, of_file

__all__ = ["file"]


def fault_of(secrets: Secrets, reference: str = REFERENCE, workspace: str = "site") -> str:
    """Why a step does not get a secret; the value is in no text of it."""
    with pytest.raises(SecretUnavailableError) as caught:
        secrets.for_step(workspace, reference)
    fault = caught.value.fault
    assert fault.reason == "SECRET_UNAVAILABLE"
    assert fault.remedy
    assert VALUE not in fault.message + fault.remedy + repr(caught.value)
    return fault.message


class TestResolving:
    """From the trust file's entry to the value."""

    def test_one_whose_file_lies_in_a_workspace_is_not_handed_out(self, file: Path, tmp_path: Path) -> None:
        """Every command there could read it; also through a link, and its value is kept out of what is shown."""
        link = tmp_path / "outside"
        link.symlink_to(file.parent)
        for path, roots in ((file, [file.parent]), (link / file.name, [file.parent]), (file, [link])):
            secrets = Secrets([of_file(path)], workspaces=roots)
            assert "lies in a workspace" in fault_of(secrets)
            assert not [one for one in secrets.findings if one.ok]
            assert secrets.redactor.find(CANARY) == "deploy"
        assert Secrets([of_file(file)], workspaces=[tmp_path / "elsewhere"]).for_step("site", REFERENCE) == DEPLOY

    def test_a_file_gives_its_content_without_the_last_line_end(self, file: Path) -> None:
        """One line end is the editor's; a second one is the value's own."""
        assert Secrets([of_file(file)]).for_step("site", REFERENCE) == DEPLOY
        file.write_text(VALUE + "\r\n")
        assert Secrets([of_file(file)]).for_step("site", REFERENCE) == DEPLOY
        file.write_text(VALUE + "\n\n")
        assert Secrets([of_file(file)]).for_step("site", REFERENCE).value == CANARY + b"\n"

    def test_a_variable_gives_its_content(self) -> None:
        """The executor's own environment is the other source."""
        source = SecretSource(name="deploy", workspaces=("site",), environment="DEPLOY_TOKEN")
        assert Secrets([source], environment={b"DEPLOY_TOKEN": CANARY}).for_step("site", REFERENCE) == DEPLOY
        assert "DEPLOY_TOKEN" in fault_of(Secrets([source], environment={}))

    @pytest.mark.parametrize(
        "reference", ["secret://other", "deploy", "secret://deploy#2", "secret://", "SECRET://deploy", ""]
    )
    def test_what_is_not_on_the_list_is_refused_by_its_reference_alone(self, file: Path, reference: str) -> None:
        """A name that the operator did not write down is none, however it is spelt."""
        assert reference in fault_of(Secrets([of_file(file)]), reference)

    def test_a_secret_of_another_workspace_is_refused(self, file: Path) -> None:
        """The list is per workspace."""
        secrets = Secrets([of_file(file, "site", "docs")])
        assert secrets.for_step("docs", REFERENCE) == DEPLOY
        assert "elsewhere" in fault_of(secrets, workspace="elsewhere")

    @pytest.mark.parametrize("value", ["", "\n", "seven77", "x" * (MOST_BYTES + 1), "xxxx-xxxx-xxxx"])
    def test_what_is_too_short_or_too_long_is_no_secret(self, file: Path, value: str) -> None:
        """It could not be kept out of what is shown."""
        file.write_text(value)
        assert "bytes" in fault_of(Secrets([of_file(file)]))

    def test_the_shortest_and_the_longest_are(self, file: Path) -> None:
        """The limits themselves hold."""
        for value in ("password", "word" * (MOST_BYTES // 4)):
            file.write_text(value + "\r\n")
            assert Secrets([of_file(file)]).for_step("site", REFERENCE).value == value.encode()

    def test_a_file_that_others_may_write_is_refused(self, file: Path) -> None:
        """Somebody else could have put the value there, whoever owns the file."""
        for mode in (0o620, 0o602):
            file.chmod(mode)
            assert "open to others" in fault_of(Secrets([of_file(file)]))

    def test_a_file_that_others_may_read_is_roots_or_refused(self, file: Path) -> None:
        """Root's choice is taken, as container engines make it; a user's own slip is not."""
        file.chmod(0o644)
        if os.geteuid() == 0:
            assert Secrets([of_file(file)]).for_step("site", REFERENCE) == DEPLOY
        else:
            assert "open to others" in fault_of(Secrets([of_file(file)]))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_somebody_elses_file_is_refused(self, file: Path) -> None:
        """Its owner could change it at any time."""
        os.chown(file, 65534, 65534)
        assert "somebody else" in fault_of(Secrets([of_file(file)]))

    def test_what_is_no_plain_file_is_refused_at_once(self, tmp_path: Path, file: Path) -> None:
        """A link, a directory, a FIFO that nobody writes to, a device, nothing: none is followed or waited for."""
        link, folder, fifo = tmp_path / "link", tmp_path / "folder", tmp_path / "fifo"
        link.symlink_to(file)
        folder.mkdir()
        os.mkfifo(fifo, 0o600)
        for path in (link, folder, fifo, Path("/dev/null"), tmp_path / "missing"):
            assert fault_of(Secrets([of_file(path)]))

    def test_findings_tell_the_operator_and_never_the_value(self, file: Path, tmp_path: Path) -> None:
        """Each secret is there or not, with the remedy."""
        missing = SecretSource(name="gone", workspaces=("site",), file=str(tmp_path / "missing"))
        found = Secrets([of_file(file, "site", "docs"), missing]).findings
        assert [(one.name, one.ok) for one in found] == [("secret deploy", True), ("secret gone", False)]
        assert found[0].detail == "for site, docs"
        assert found[1].remedy
        assert VALUE not in repr(found)

    def test_a_new_trust_file_reads_all_values_again(self, file: Path, tmp_path: Path) -> None:
        """The new value counts for steps; the former one still goes out of everything."""
        house = House(tmp_path / "house")
        try:
            secrets = Secrets([of_file(file)])
            file.write_text("an0ther-s3cret-value\n")
            assert secrets.for_step("site", REFERENCE) == DEPLOY
            secrets.follow(dataclasses.replace(house.trust, secrets=(of_file(file),)))
            assert secrets.for_step("site", REFERENCE).value == b"an0ther-s3cret-value"
            assert secrets.redactor.text(f"{VALUE} an0ther-s3cret-value") == f"{MARKER} {MARKER}"
            secrets.follow(house.trust)
            assert fault_of(secrets)
            assert secrets.redactor.text(VALUE) == MARKER
        finally:
            house.close()

    def test_no_rendering_of_the_secrets_shows_a_value(self, file: Path) -> None:
        """Not even of the parts that a trace may print."""
        secrets = Secrets([of_file(file)])
        assert VALUE not in repr(secrets) + repr(secrets.redactor) + repr(secrets.for_step("site", REFERENCE))


class TestHandingOver:
    """A value goes to one child process."""

    def test_by_a_variable_of_that_child_alone(self) -> None:
        """The child sees it; this process's own environment does not."""
        given = environment_of("DEPLOY_TOKEN", DEPLOY)
        script = "import os, sys; sys.stdout.write(os.environ['DEPLOY_TOKEN'])"
        with subprocess.Popen([sys.executable, "-c", script], env=given, stdout=subprocess.PIPE) as child:
            assert child.communicate()[0] == CANARY
        assert "DEPLOY_TOKEN" not in os.environ

    def test_no_variable_takes_a_nul(self) -> None:
        """It would be cut there."""
        with pytest.raises(SecretUnavailableError):
            environment_of("DEPLOY_TOKEN", Secret(name="binary", value=b"1234\x005678"))

    def test_by_an_inherited_descriptor(self) -> None:
        """The child reads it as a file, can not change it, and a child that it is not passed to has nothing."""
        script = """
import os, sys
fd = int(sys.argv[1])
data = open(f"/dev/fd/{fd}", "rb").read() + os.read(fd, 100)
try:
    os.write(fd, b"x")
except OSError as error:
    data += str(error.errno).encode()
sys.stdout.buffer.write(data)
"""
        with inherited(DEPLOY) as fd:
            argv = [sys.executable, "-c", script, str(fd)]
            with subprocess.Popen(argv, env={}, pass_fds=(fd,), stdout=subprocess.PIPE) as child:
                assert child.communicate()[0] == CANARY * 2 + b"1"
            with subprocess.Popen(argv, env={}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
                assert other.communicate()[0] == b""
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


class TestExecutor:
    """The core around it all."""

    @pytest.fixture
    def house(self, tmp_path: Path, file: Path) -> Iterator[House]:
        opened = SecretHouse(tmp_path / "house", Secrets([of_file(file)]))
        yield opened
        opened.close()

    @pytest.mark.parametrize("content", [VALUE, base64.b64encode(b"x" + CANARY).decode(), CANARY.hex()])
    def test_a_plan_that_holds_a_value_is_refused_before_anything_is_kept(self, house: House, content: str) -> None:
        """Its dry run does not begin, and the value is not repeated."""
        with pytest.raises(RequestMalformedError) as caught:
            house.dry_run(house.sealed_plan(house.plan(content=f"token={content}\n")))
        assert caught.value.fault.reason == "SECRET_IN_PLAN"
        assert content not in str(caught.value.fault)
        assert house.simulator.runs == 0
        assert leaks(house.own, CANARY) == []

    def test_the_description_names_the_secrets_and_no_value(self, house: House) -> None:
        """`gonogo doctor` shows what is there."""
        findings = house.core.describe().capabilities.findings
        assert findings[-1].name == "secret deploy"
        assert VALUE not in repr(house.core.describe())

    def test_an_object_from_before_is_not_shown(self, house: House) -> None:
        """What was kept before the executor knew the secret is refused, at whatever offset it is asked for."""
        data = b"x" * 100 + CANARY + b"y" * SMALL_BYTES
        batch = house.core._objects.batch()  # type: ignore[attr-defined]  # the store behind the port
        digest = batch.put_bytes(data)
        batch.sync()
        for offset, limit in ((0, 50), (90, 20), (110, 5)):
            with pytest.raises(Exception, match="holds secret deploy") as caught:
                house.core.get_object(digest, offset, limit)
            assert caught.value.fault.reason == "SECRET_EXPOSED"  # type: ignore[attr-defined]  # an executor's error
        assert house.core.get_object(digest, 400, 100)[0] == b"y" * 100


class SecretHouse(House):
    """A house whose executor has secrets."""

    def __init__(self, root: Path, secrets: Secrets) -> None:
        self.secrets = secrets
        super().__init__(root)

    def more_parts(self) -> dict[str, typing.Any]:
        return {**super().more_parts(), "secrets": self.secrets}
