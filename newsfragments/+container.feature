A ``Dockerfile`` and a ``compose.yaml`` for a small container: no root, a read-only file system, no capabilities, and a
health check that makes a real activation.
