"""Who may ask for what: the clients, their rights, and the keys and certificates by which they are known.

`values.py` has what the others speak of, `keys.py` the form of a key, `certificates.py` the names in a certificate,
`times.py` times for people, `clients.py` finds the client of a key or certificate, `reading.py` reads the clients file
and finds every fault in it. `layout.py` changes that file's text, `store.py` the file, `command.py` is `lxdsched key`.
"""

from lxdsched.access.certificates import certificate_names
from lxdsched.access.clients import Clients
from lxdsched.access.reading import ClientsError, read_clients
from lxdsched.access.values import Client, Right, Shown, Stranger

__all__ = [
    "Client",
    "Clients",
    "ClientsError",
    "Right",
    "Shown",
    "Stranger",
    "certificate_names",
    "read_clients",
]
