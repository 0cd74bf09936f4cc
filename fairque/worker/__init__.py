"""Workers: the control loop, leases, executors, the supervisor."""
