"""Many tasks at once, and the clean-up: one line a method over operations that both queues share."""

from __future__ import annotations

from fairque.core.filters import TaskFilter
from fairque.queue.operations import bulk, cleanup
from fairque.queue.operations.bulk import BulkOutcome
from fairque.queue.operations.cleanup import DeletedUser
from fairque.queue.workflows import WorkflowQueue


class BulkQueue(WorkflowQueue):
    """The part of TaskQueue that acts on many tasks by a filter, and that cleans up."""

    def count_where(self, where: TaskFilter) -> int:
        """How many tasks fit, in any state unless the filter names some."""
        return self.run(bulk.count_where(self.engine, where))

    def cancel_where(
        self, where: TaskFilter, *, dry_run: bool = False, limit: int | None = None
    ) -> BulkOutcome:
        """Cancel the tasks that fit and wait, and ask those that run to stop; with `dry_run`, only count them.

        In chunks; each task is touched only if it is still in the state in which it was seen. Tasks that come after the
        call has begun are left alone. `limit`: at most so many, the oldest of each state first.

        Raises:
            InvalidFilterError: the filter has no condition, or names a state that no cancel leads out of.
        """
        return self.run(bulk.cancel_where(self.engine, where, dry_run=dry_run, limit=limit))

    def retry_where(
        self, where: TaskFilter, *, dry_run: bool = False, limit: int | None = None
    ) -> BulkOutcome:
        """Queue the failed tasks that fit again (canceled ones if the filter names that state), as `cancel_where` goes.

        Raises:
            InvalidFilterError: the filter has no condition, or names a state other than failed and canceled.
        """
        return self.run(bulk.retry_where(self.engine, where, dry_run=dry_run, limit=limit))

    def delete_where(
        self, where: TaskFilter, *, dry_run: bool = False, limit: int | None = None
    ) -> BulkOutcome:
        """Remove the tasks that fit and have ended (others if the filter names their states), as `cancel_where` goes.

        Raises:
            InvalidFilterError: the filter has no condition, or names started tasks.
        """
        return self.run(bulk.delete_where(self.engine, where, dry_run=dry_run, limit=limit))

    def cleanup_expired_tasks(self) -> dict[str, int]:
        """A whole round of clean-up, in calls of a few milliseconds; returns how many of each there were.

        Workers do the same by themselves, in turns (`queue.cleanup_interval_seconds`).
        """
        return self.run(cleanup.sweep(self.engine))

    def delete_user(self, user_id: str, *, force: bool = False) -> DeletedUser:
        """Remove a user with its policy, counters, dead letters and kept tasks; with `force` also what waits, and what
        runs is asked to stop: then call again until it is `done`.

        Raises:
            UserBusyError: it has tasks that wait or run, and `force` was not given.
        """
        return self.run(cleanup.delete_user(self.engine, user_id, force))
