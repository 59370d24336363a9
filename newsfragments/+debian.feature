Debian packages: ``python3-kmsproto`` with the library and the commands, and ``kmsproto`` with the service, for systemd
(also activated by its socket) and for init scripts.
