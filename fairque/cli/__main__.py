"""`python -m fairque.cli` is `fairque`, for where no script is installed."""

from fairque.cli import main

main()
