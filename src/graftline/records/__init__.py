"""Records: signed JSON beside every output that says what made it, out of what.

A record is an in-toto Statement v1 (https://in-toto.io/Statement/v1) with a SLSA provenance v1 predicate
(https://slsa.dev/spec/v1.0/provenance) in canonical JSON (RFC 8785). It holds nothing that differs between two
runs with the same result: times, hosts and paths go into `execution.json` beside it, the signature over its bytes
into `record.dsse.json`.

    model    what a record says, the names of what a step is given, and the only parser
    folder   the record of an output folder: written last, read back, verified against every byte
"""
