"""
The host as a service: settings, state on disk, and the plugin that twistd runs.

C{settings} defines each setting once, C{installation} keeps what makes a host the same host at every start,
C{listener} is the service itself, C{tap} is what the plugin names.
"""
