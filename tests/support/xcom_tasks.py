"""Tasks that share values."""

from __future__ import annotations

from fairque.core.context import current_task
from fairque.core.decorator import task
from fairque.core.xcom import xcom_task
from tests.support.flow_tasks import Total


@task(max_retries=0)
def leave(key: str, value: object, namespace: str = "default") -> None:
    current_task().xcom_push(key, value, namespace=namespace)


@task(max_retries=0)
def leave_much(key: str, size: int) -> None:
    current_task().xcom_push(key, "x" * size)


@task(max_retries=0)
def look(key: str, wait: float = 0, default: object = None) -> object:
    if default is None:
        return current_task().xcom_pull(key, wait=wait)
    return current_task().xcom_pull(key, default, wait=wait)


@task(max_retries=0)
async def relay_async(key: str, to: str) -> object:
    value = await current_task().xcom_pull_async(key, wait=5)
    await current_task().xcom_push_async(to, value)
    return value


@xcom_task(push_key="total", namespace="sums")
def make_total(parts: list[int]) -> Total:
    return Total(sum(parts), parts)


@xcom_task(pull_keys={"total": "total"}, namespace="sums", auto_xcom=True)
def describe(total: Total, prefix: str = "sum") -> str:
    return f"{prefix} {total.sum} of {len(total.parts)}"


@xcom_task(pull_keys=["describe"], namespace="sums", max_retries=0)
async def shout(describe: str) -> str:
    return describe.upper()
