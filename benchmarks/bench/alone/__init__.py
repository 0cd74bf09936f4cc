"""FairQueue alone: against its limits, as it grows, and what it holds in memory."""
