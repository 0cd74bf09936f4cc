"""The queue from async code: the same names, awaited; and `async def` tasks, of which one worker runs many."""

from __future__ import annotations

import asyncio
import time

from fairque import AsyncTaskQueue, FairQueueConfig, Worker, task


@task
async def fetch(number: int) -> int:
    await asyncio.sleep(0.2)  # a call to somewhere else
    return number * number


async def main() -> None:
    config = FairQueueConfig.from_dict({"workers": [{"max_concurrent_tasks": 50}]})
    worker = Worker(config)
    await asyncio.to_thread(worker.start)
    async with AsyncTaskQueue(config) as queue:
        begun = time.monotonic()
        outcomes = await queue.push_batch(fetch(number) for number in range(50))
        results = await asyncio.gather(*(outcome.unwrap().result(timeout=30) for outcome in outcomes))
        print("sum:", sum(results))
        print("side by side:", time.monotonic() - begun < 50 * 0.2)
    await asyncio.to_thread(worker.stop)


if __name__ == "__main__":
    asyncio.run(main())

# Prints:
# sum: 40425
# side by side: True
