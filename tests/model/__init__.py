"""The fair scheduler as a pure model, and the real scripts beside it."""
