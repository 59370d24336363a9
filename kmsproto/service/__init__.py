"""
The host as a service: settings, state on disk, workers, log, and the plugin that twistd runs.

C{settings} defines each setting once, C{installation} keeps what makes a host the same host at every start,
C{hosting} puts a host together from both.  C{listener} is the service of one process.  C{supervisor} is that of
several: C{sharing} opens its sockets, C{handover} is what each worker is told, C{workers} watches over them, and
C{worker} is what they run.  C{logs} puts the C{journal} in the place of twistd's log.  C{tap} is what the plugin names.
"""
