"""The benchmarks: FairQueue beside its peers, beside its own limits, and alone. Started by `benchmarks/run.py`."""
