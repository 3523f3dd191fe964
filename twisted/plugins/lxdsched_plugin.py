"""Makes `twistd lxdsched` known. It imports nothing of the application: importing klein would install a reactor."""

from twisted.application.service import ServiceMaker

lxdsched = ServiceMaker(
    "lxdsched", "lxdsched.tap", "Answers over HTTP on which LXD host the next instance shall go", "lxdsched"
)
