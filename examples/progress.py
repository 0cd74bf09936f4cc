"""What a running task tells, and how it is stopped."""

from __future__ import annotations

import time

from fairque import TaskQueue, Worker, current_task, task
from fairque.core.exceptions import TaskCanceledError


@task
def count_slowly(up_to: int) -> int:
    me = current_task()
    for number in range(1, up_to + 1):
        if me.cancelled:
            return number  # nobody will see it
        me.progress(number, up_to, f"at {number}")
        time.sleep(0.05)
    return up_to


def main() -> None:
    worker = Worker()
    worker.start()
    with TaskQueue() as queue:
        handle = queue.push(count_slowly(10))
        told = [update.progress.done for update in handle.events(timeout=30) if update.progress]
        print("progress only grows:", told == sorted(told), "- result", handle.result())

        handle = queue.push(count_slowly(100_000))
        for update in handle.events(timeout=30):
            if update.progress:  # it runs
                handle.cancel()
                break
        try:
            handle.result(timeout=60)
        except TaskCanceledError as error:
            print("stopped:", error.reason)
    worker.stop()


if __name__ == "__main__":
    main()

# Prints:
# progress only grows: True - result 10
# stopped: canceled
