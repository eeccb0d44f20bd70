"""The engine: ``schedule -> decode -> sample -> emit``, in a thread or in a child process."""
