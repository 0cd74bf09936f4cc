"""The queue: facades over operations that are each written once, and all that talks to the server."""
