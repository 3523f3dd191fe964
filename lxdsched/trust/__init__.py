"""Which certificate each host showed when it was met first, remembered across restarts.

`records.py` has what is known of a host and how that changes, `certificates.py` says for people what a certificate is.
`directory.py` and `file.py` keep it all on the disk, `memory.py` and `keeper.py` in the daemon, and `use.py` is the
trust in one host that comes of it.
"""
