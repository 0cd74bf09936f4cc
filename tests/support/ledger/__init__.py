"""The ledger: what was sent is compared with what was done, while everything that can be killed is killed.

    python -m tests.support.ledger --minutes 10 --seed 7

`plan` draws a schedule of faults from a seed; `crew` are the processes that it is done to, and `faults` does it;
`producers` push and write into the `book` what the server has acknowledged; tasks (`work`) write each execution
on a `sheet`; `audit` compares the two with what the server has recorded; `drive` is the whole of it.
"""
