"""The fleet: one client per host, what each host last said, and the view of all of them.

`client.py` speaks a host's REST API, `connections.py` makes its connections as `tls.py` trusts them and `names.py`
finds them, `payloads.py` reads its answers, `host.py` keeps what one host last said and when it is asked again,
`shared.py` lets many wait for one question, `alarm.py` lets nobody wait for ever, `fleet.py` is all hosts.
"""
