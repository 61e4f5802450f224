"""A PostgreSQL of a test run's own: made, started, killed and started again where the test wants it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
PASSWORD = "p4ss-w0rd-0f-the-app"
PORT = 5432


def available() -> bool:
    """Tell whether Debian's PostgreSQL is here, and somebody who may run it; in CI it must be."""
    if PROGRAMS.joinpath("postgres").exists():
        return True
    if os.environ.get("CI") == "true":
        raise FileNotFoundError(PROGRAMS)
    return False


needed = pytest.mark.skipif(not available(), reason="PostgreSQL 15 is not installed: apt-get install postgresql-15")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """One running server, reached by a socket in its folder alone."""

    folder: Path

    @property
    def dsn(self) -> str:
        """How the application's role reaches it; without its password."""
        return f"host={self.folder} port={PORT} dbname=shop user=app"

    def admin(self, *statements: str, database: str = "shop") -> list[tuple[object, ...]]:
        """Run statements as the superuser; return the last one's rows."""
        with psycopg.connect(f"host={self.folder} port={PORT} dbname={database} user={USER}", autocommit=True) as admin:
            cursors = [admin.execute(statement.encode()) for statement in statements]
            return cursors[-1].fetchall() if cursors[-1].description else []

    def start(self) -> None:
        """Start it and wait for it."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -p {PORT}"
        self._run("pg_ctl", "-D", self.data, "-l", f"{self.folder}/log", "-o", options, "-w", "start")

    def kill(self) -> None:
        """Kill it with all its processes, as a power cut would."""
        leader = self.pid
        children = Path(f"/proc/{leader}/task/{leader}/children").read_text(encoding="ascii").split()
        for pid in (leader, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        while any(map(_runs, (leader, *map(int, children)))):
            time.sleep(0.01)
        # Nobody may have waited for its first process yet, and then its number is still taken.
        for lock in (Path(self.data, "postmaster.pid"), Path(self.folder, f".s.PGSQL.{PORT}.lock")):
            lock.unlink()

    @property
    def pid(self) -> int:
        """The server's first process."""
        return int(Path(self.data, "postmaster.pid").read_text(encoding="ascii").split()[0])

    @property
    def data(self) -> str:
        """Where its files are."""
        return f"{self.folder}/data"

    def make(self) -> None:
        """Make the files of a new one."""
        self._run("initdb", "-D", self.data, "-A", "scram-sha-256", "-U", USER, "--no-sync", "--pwfile", self._pwfile())
        rules = f"local all {USER} trust\nlocal all all scram-sha-256\n"
        self._write(f"{self.data}/pg_hba.conf", rules)

    def _pwfile(self) -> str:
        path = f"{self.folder}/superuser"
        self._write(path, "superuser\n")
        return path

    def _write(self, path: str, text: str) -> None:
        Path(path).write_text(text, encoding="ascii")
        if os.geteuid() == 0:
            shutil.chown(path, USER)

    @staticmethod
    def _run(program: str, *arguments: str) -> None:
        words: Sequence[str] = (str(PROGRAMS / program), *arguments)
        as_user = ("runuser", "-u", USER, "--") if os.geteuid() == 0 else ()
        subprocess.run((*as_user, *words), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][:1] not in {"Z", "X"}
    except OSError:
        return False


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a server with the database `shop` and the least-privilege role `app`."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    made = Cluster(folder=folder)
    try:
        made.make()
        made.start()
        made.admin("CREATE DATABASE shop", f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'", database="postgres")
        yield made
    finally:
        if Path(made.data, "postmaster.pid").exists():
            made.kill()
        shutil.rmtree(folder)
