Lines about clients are written to the log of ``twistd kms`` in batches, within a quarter of a second and whole at the
end; a log file that cannot be opened is told in one line.
