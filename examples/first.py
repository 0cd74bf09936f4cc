"""A function as a task: pushed, run by a worker, its result fetched."""

from __future__ import annotations

from fairque import TaskQueue, Worker, task
from fairque.core.exceptions import TaskFailedError


@task(max_retries=0)
def divide(number: float, by: float) -> float:
    return number / by


def main() -> None:
    worker = Worker()  # usually a process of its own: fairque worker first
    worker.start()
    with TaskQueue() as queue:
        handle = queue.push(divide(84, by=2))  # calling it builds a task; nothing runs here
        print("84 / 2 =", handle.result(timeout=30))

        handle = queue.push(divide(1, by=0))
        try:
            handle.result(timeout=30)
        except TaskFailedError as error:
            print("1 / 0:", error.message)
            print("raised in", error.traceback.splitlines()[1].rpartition("in ")[2])
    worker.stop()


if __name__ == "__main__":
    main()

# Prints:
# 84 / 2 = 42.0
# 1 / 0: division by zero
# raised in divide
