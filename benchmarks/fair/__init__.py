"""What fairness.py consists of: scenarios run, scaling, peers, and the table, the charts and the page of a report."""
