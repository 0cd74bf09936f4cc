"""Workers: what claims tasks and runs them."""
