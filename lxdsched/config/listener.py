"""Where to listen, and which files say who may come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.endpoints import quoteStringArgument

from lxdsched.config.guard import GuardFiles, TlsFiles
from lxdsched.listener.settings import Listening
from lxdsched.listener.tls import Ask


class ListenerReader:
    """Reads what the settings say about the listener, and keeps every fault.

    `values` are the settings' values, `sources` where each was found, `defaults` what it is where it was not set; all
    have the same keys.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        sources: Mapping[str, str],
        defaults: Mapping[str, object],
        faults: list[str],
    ) -> None:
        self._values = values
        self._sources = sources
        self._defaults = defaults
        self._faults = faults

    def listening(self) -> Listening:
        """Read where to listen."""
        values = self._values
        if values["endpoint"] is None:
            interface = str(values["interface"])
            kind = "tcp6" if ":" in interface else "tcp"
            where = f"{kind}:{values['port']}:interface={quoteStringArgument(interface)}"
        else:
            where = values["endpoint"]
            for name in ("port", "interface"):
                if values[name] != self._defaults[name]:
                    self._complain(name, "is set, and endpoint says where to listen; give one")
        return Listening(where, values["metrics_endpoint"], values["metrics_access"] == "open")

    def guard_files(self) -> GuardFiles:
        """Read which files say who may come in."""
        named = {
            name: (self._sources[name], self._values[name])
            for name in ("clients_file", "tls_cert", "tls_key", "tls_client_ca", "tls_client_crl")
            if self._values[name] is not None
        }
        ask = None if self._values["tls_client_auth"] is None else Ask(self._values["tls_client_auth"])
        certificate, key = named.get("tls_cert"), named.get("tls_key")
        clients = named.get("clients_file")
        for name, given, other in (("tls_cert", certificate, "tls_key"), ("tls_key", key, "tls_cert")):
            if given is None and other in named:
                self._complain(name, f"is missing, and {other} is set")
        wanted: set[str] = {name for name in ("tls_client_ca", "tls_client_crl") if name in named}
        if ask not in (None, Ask.NONE):
            wanted.add("tls_client_auth")
        for name in sorted(wanted):
            if certificate is None and key is None:
                self._complain(name, "is set, and there is no tls_cert")
            elif clients is None:
                self._complain(name, "is set, and no clients_file says who the clients are")
            elif ask is Ask.NONE:
                self._complain(name, "is set, and tls_client_auth is none")
        if "tls_client_crl" in named and "tls_client_ca" not in named:
            self._complain("tls_client_crl", "is set, and there is no tls_client_ca")
        tls = None
        if certificate is not None and key is not None:
            tls = TlsFiles(certificate, key, named.get("tls_client_ca"), named.get("tls_client_crl"), ask)
        return GuardFiles(clients, tls)

    def _complain(self, name: str, fault: str) -> None:
        self._faults.append(f"{self._sources[name]}: {fault}")
