"""Schedules: what is due when, decided by pure functions that every leader computes alike."""
