"""
The C{kmsproto} command: one module for each subcommand, and C{main}, which gathers them.
"""
