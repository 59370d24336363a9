"""
The host as a service: settings, state on disk, listening, and what twistd makes of it.
"""
