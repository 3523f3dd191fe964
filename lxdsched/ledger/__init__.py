"""Where reservations live: what answers have claimed on hosts that LXD does not show yet.

`book` says what a ledger must be able to do, `sight` how an instance takes a reservation over, `memory` keeps
reservations in this process.
"""
