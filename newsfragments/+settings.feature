Everything that vlmcsd can be told can be set, by its letters or by long names, on the command line, in variables of the
environment, in ``kms.toml`` or in a ``vlmcsd.ini``; ``kmsproto config`` shows, checks and converts settings; ``SIGHUP``
reloads them without dropping anybody; external catalogues (``.kmd``) are read and written; clients can be counted.
