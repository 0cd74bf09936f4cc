"""The README's example, run as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ServerProcess

README = Path(__file__).parents[2] / "README.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.timeout(90)
@pytest.mark.leaves_keys("fq:functions", "fq:state:finished")
def test_the_first_example_prints_what_the_readme_says(
    server: ServerProcess, tmp_path: Path, flushed: object
) -> None:
    text = README.read_text()
    files = dict(FILE.findall(text))
    assert set(files) == {"jobs.py", "push.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    expected = text.partition("$ python push.py\n")[2].partition("```")[0]

    env = os.environ | {"FAIRQUE_REDIS__URL": server.url, "PYTHONPATH": str(README.parent)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "fairque.cli", "worker", "jobs", "--threads", "8"], cwd=tmp_path, env=env
    )
    try:
        done = subprocess.run(
            [sys.executable, "push.py"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(timeout=40)
    assert done.stderr == ""
    assert done.stdout == expected
    assert code == 0
