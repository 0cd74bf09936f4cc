"""`python -m fairque` is `fairque`, for where no script is installed."""

from fairque.cli import main

main()
