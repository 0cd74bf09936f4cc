"""An extract, transform and load over real files: three tasks that hand over what they made, and one that checks."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

from fairque import FairQueueConfig, TaskQueue, Worker, task


@task
def extract(path: str) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@task
def transform(rows: list[dict[str, str]]) -> list[tuple[str, int]]:
    return [(row["city"], int(row["people"])) for row in rows if row["people"].isdigit()]


@task
def validate(rows: list[dict[str, str]]) -> int:
    return sum(not row["people"].isdigit() for row in rows)


@task
def load(rows: list[tuple[str, int]], wrong: int, database: str) -> dict[str, int]:
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS cities (name TEXT PRIMARY KEY, people INTEGER)")
        # It may run twice, if its worker dies: so it replaces.
        connection.executemany("REPLACE INTO cities VALUES (?, ?)", rows)
        [total] = connection.execute("SELECT sum(people) FROM cities").fetchone()
    return {"loaded": len(rows), "wrong": wrong, "people": total}


if __name__ == "__main__":
    Path("cities.csv").write_text("city,people\nBern,134000\nBasel,178000\nAtlantis,many\n")
    rows = extract("cities.csv")
    good, wrong = transform(rows.output), validate(rows.output)
    work = rows >> (good | wrong) >> load(good.output, wrong.output, "cities.db")

    config = FairQueueConfig.create_default()
    worker = Worker(config)
    worker.start()
    with TaskQueue(config) as queue:
        handle = queue.enqueue(work.with_options(name="cities"))
        print(handle.result(30))
        print(handle.info().name, handle.state())
    worker.stop(5)

# Prints:
# {'loaded': 2, 'wrong': 1, 'people': 312000}
# cities finished
