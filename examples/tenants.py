"""Two tenants: one floods the queue, the other comes later and is served at once. Then one of them gets more."""

from __future__ import annotations

from fairque import FairQueueConfig, Task, TaskQueue, UserPolicy, Worker, task

started: list[str] = []


@task
def work(tenant: str) -> None:
    started.append(tenant)


def order_of(queue: TaskQueue, config: FairQueueConfig, tasks: list[Task[None]]) -> str:
    """Push everything, then let a worker with one slot run it: who came when?"""
    started.clear()
    handles = [outcome.unwrap() for outcome in queue.push_batch(tasks)]
    worker = Worker(config)
    worker.start()
    for handle in handles:
        handle.result(timeout=30)
    worker.stop()
    return " ".join(started)


def main() -> None:
    config = FairQueueConfig.from_dict({"workers": [{"max_concurrent_tasks": 1}]})
    big, small = work.with_options(user_id="big"), work.with_options(user_id="small")
    flood = [big("big") for _ in range(9)] + [small("small") for _ in range(3)]
    with TaskQueue(config) as queue:
        print("in turn:     ", order_of(queue, config, flood))

        queue.set_user_policy("big", UserPolicy(weight=2))  # worth two of the others
        print("weight 2 : 1:", order_of(queue, config, [task.with_options() for task in flood]))
        queue.set_user_policy("big", None)


if __name__ == "__main__":
    main()

# Prints:
# in turn:      big small big small big small big big big big big big
# weight 2 : 1: big small big big small big big small big big big big
