"""The workloads that all systems run."""
