"""The scheduler process: one of several leads, looks at what is due, and has its plans taken by the server."""
