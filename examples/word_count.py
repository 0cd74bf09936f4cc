"""Map and reduce: count the words of the standard library's sources, a task for each file that is found."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from fairque import FairQueueConfig, TaskQueue, Worker, task


@task
def find(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob("*.py"))


@task
def count(path: str, at_least: int = 3) -> dict[str, int]:
    words = re.findall(r"[a-z_]+", Path(path).read_text().lower())
    return {word: times for word, times in Counter(words).items() if times >= at_least}


@task
def total(counts: list[dict[str, int]]) -> list[str]:
    everywhere: Counter[str] = Counter()
    for found in counts:
        everywhere.update(found)
    return [word for word, _times in everywhere.most_common(1)]


if __name__ == "__main__":
    files = find(str(Path(json.__file__).parent))
    counts = count.map(files.output, at_least=2)  # as many tasks as there will be files
    config = FairQueueConfig.create_default()
    worker = Worker(config)
    worker.start()
    with TaskQueue(config) as queue:
        handle = queue.enqueue(files >> counts.reduce(total))
        result = handle.result(60)
        here = [count.fn(path, at_least=2) for path in find.fn(str(Path(json.__file__).parent))]
        print("as counted here:", result == total.fn(here))
        print("a task for each file:", handle.info().total - 3 == len(here))
    worker.stop(5)

# Prints:
# as counted here: True
# a task for each file: True
