"""A loop of your own instead of a worker: whoever pops a task holds it for one lease, and says how it ended."""

from __future__ import annotations

from fairque import Task, TaskQueue


def main() -> None:
    with TaskQueue() as queue:
        queue.push_batch(Task.create(user_id="alice", payload=number, max_retries=0) for number in (4, 0, 5))
        while (claimed := queue.pop(wait=1)) is not None:
            queue.renew(claimed)  # in long work, at least once a lease: queue.lease_seconds
            try:
                result = 100 / claimed.payload
            except ZeroDivisionError as error:
                queue.fail(claimed, error)
                print(claimed.payload, "failed:", error)
            else:
                queue.finish(claimed, result)
                print(claimed.payload, "finished:", result)

        queue.push(Task.create(payload="later"))
        claimed = queue.pop()
        if claimed is not None:
            queue.release(claimed)  # unstarted: it is the next again, and no attempt is used up
            print("given back:", queue.get_queue_sizes("default").normal)
            queue.delete_task(claimed)
        queue.dlq.purge(user="alice")


if __name__ == "__main__":
    main()

# Prints:
# 4 finished: 25.0
# 0 failed: division by zero
# 5 finished: 20.0
# given back: 1
