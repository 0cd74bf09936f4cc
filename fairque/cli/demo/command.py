from fairque.cli.run import Run
def demo(run: Run) -> None:
    """Todo"""
