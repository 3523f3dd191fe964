"""The HTTP face: what comes in becomes a demand, what is decided becomes JSON.

`channel.py` holds what a client may do to a connection, `site.py` serves all connections, `requests.py` reads
requests, `answers.py` writes answers, `errors.py` is the one form of every error, `app.py` are the routes.
"""
