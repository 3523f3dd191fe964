"""Who gets a connection to us, and how: below HTTP.

`settings.py` says where to listen and what clients may do, `crowd.py` who is connected and who has to make room,
`admission.py` lets connections in, `turns.py` says whose request is answered next, `tls.py` is our end of TLS.
"""
