"""Trees of many small files to measure on."""

from pathlib import Path

PER_DIRECTORY = 50
CONTENT = b"x" * 100


def make_tree(root: Path, files: int) -> Path:
    """Make a tree of that many small files, fifty to a directory."""
    for first in range(0, files, PER_DIRECTORY):
        directory = root / f"d{first // 1000:03}" / f"e{first % 1000 // PER_DIRECTORY:02}"
        directory.mkdir(parents=True)
        for number in range(first, min(first + PER_DIRECTORY, files)):
            (directory / f"file_{number:06}.txt").write_bytes(CONTENT)
    return root


def a_file(number: int) -> str:
    """Return the path of one of the files."""
    first = number - number % PER_DIRECTORY
    return f"d{first // 1000:03}/e{first % 1000 // PER_DIRECTORY:02}/file_{number:06}.txt"
