A KMS host for protocol versions 4, 5 and 6 over connection-oriented DCE/RPC, started with ``twistd kms``; a client,
also as the command ``kmsproto probe``; and both as a library for Twisted applications.
