"""Where reservations live: what answers have claimed on hosts that LXD does not show yet.

`book` says what a ledger must be able to do, `sight` how an instance takes a reservation over, `picture` what one
process knows of reservations. `memory` keeps them in this process.

`redis` shares them with other replicas: `exchange` calls `ledger.lua` there, `records` writes and reads what travels,
`mirror` works it into the picture, `takeover` tells which instances were seen, `presence` goes away and comes back,
over a `link` by the protocol of `wire`; `settings` say where to.
"""
