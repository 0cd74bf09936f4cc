"""Tasks that carry a payload instead of a function: one handler takes them all."""

from __future__ import annotations

from typing import Any

from fairque import FairQueueConfig, Priority, Task, TaskHandler, TaskQueue, Worker


class Mailer(TaskHandler):
    """With a worker of its own process: fairque worker --handler handler:Mailer"""

    def process_task(self, task: Task[Any]) -> object:
        return f"to {task.payload['to']} for {task.user_id}"

    def on_task_success(self, task: Task[Any], duration: float) -> None:
        print("sent", task.payload["to"])


def main() -> None:
    config = FairQueueConfig.from_dict({"workers": [{"max_concurrent_tasks": 1}]})
    worker = Worker(config, Mailer())
    with TaskQueue(config) as queue:
        # Pushed before anybody works: the urgent one goes first.
        normal = queue.push(Task.create(user_id="alice", payload={"to": "bob"}))
        urgent = queue.push(Task.create(user_id="alice", payload={"to": "carol"}, priority=Priority.CRITICAL))
        worker.start()
        results = [urgent.result(timeout=30), normal.result(timeout=30)]
    worker.stop()
    print(*results, sep="\n")


if __name__ == "__main__":
    main()

# Prints:
# sent carol
# sent bob
# to carol for alice
# to bob for alice
