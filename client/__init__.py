"""The `gonogo` command, the Python client, and what a person runs without the services."""
