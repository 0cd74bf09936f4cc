"""Failures: tried again with a growing pause, put off by the task itself, and what is left when all fails."""

from __future__ import annotations

from fairque import RetryAfter, TaskQueue, Worker, current_task, exponential, fixed, task
from fairque.core.exceptions import TaskFailedError


@task(max_retries=5, retry=exponential(base=0.05, cap=1, jitter=True))
def shaky() -> str:
    attempt = current_task().attempt
    if attempt < 3:
        raise ConnectionError("not yet")
    return f"attempt {attempt} worked"


@task(max_retries=1)
def polite() -> str:
    if current_task().attempt == 1:
        raise RetryAfter(0.1)  # the other side said: come back in a moment
    return "came back as told"


@task(max_retries=1, retry=fixed(0.05))
def hopeless(what: str) -> None:
    raise ValueError(f"no {what}")


def main() -> None:
    worker = Worker()
    worker.start()
    with TaskQueue() as queue:
        print(queue.push(shaky()).result(timeout=30))
        print(queue.push(polite()).result(timeout=30))

        handle = queue.push(hopeless.with_options(user_id="alice")("luck"))
        try:
            handle.result(timeout=30)
        except TaskFailedError as error:
            print("dead letter:", error.message)
        [letter] = queue.dlq.list(user="alice")
        print(len(letter.errors), "attempts, reason:", letter.reason)
        print("queued again:", queue.dlq.requeue(letter.task))
        try:
            handle.result(timeout=30)
        except TaskFailedError:
            print("removed:", queue.dlq.purge(user="alice"))
    worker.stop()


if __name__ == "__main__":
    main()

# Prints:
# attempt 3 worked
# came back as told
# dead letter: no luck
# 2 attempts, reason: no retries left
# queued again: 1
# removed: 1
