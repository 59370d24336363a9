A toolkit for KMS hosts of any make: ``kmsproto probe`` does all that vlmcs does and tells every check and every broken
rule; ``discover`` and ``dns`` look after SRV records; ``check`` is a monitoring plugin; ``audit`` reports how a host keeps
the standards; ``decode`` opens captures; ``products`` and ``explain`` know products, codes, events and ePIDs; ``bench``
measures capacity.  All print JSON too, and have man pages and shell completion.
