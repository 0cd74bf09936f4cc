"""Each operation of the queue, written once, as a generator that yields calls and receives replies."""
