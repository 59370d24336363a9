``twistd kms --workers N`` answers from several processes, ``--workers auto`` from one per core: a supervisor opens the
sockets, hands them to the workers, starts those again that die, and stops all without cutting anybody off.
