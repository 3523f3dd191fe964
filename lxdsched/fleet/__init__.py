"""The fleet: what each host last said, and when it is asked again.

One host's API: `client.py` speaks it, `events.py` hears its stream, `connections.py` makes the connections as
`lxdsched/tls.py` trusts them and `lxdsched/names.py` finds them. What it means: `payloads.py` reads answers,
`counting.py` sums instances up, `hints.py` and `drain.py` tell what an event and a configuration mean to us. When it is
asked: `inquiry.py` is one question with its deadline, `subscription.py` keeps the stream open; `turns.py`, `pace.py`,
`contacts.py` and `shared.py` see that nobody asks too often or waits for ever. `host.py` puts these together for one
host, `standing.py` and `report.py` say how it stands; `fleet.py` is all hosts.
"""
