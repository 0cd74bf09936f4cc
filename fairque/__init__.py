"""FairQueue: a fair multi-tenant task queue for Python on Redis or Valkey."""
