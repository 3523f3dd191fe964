"""Completes a CycloneDX bill of materials with who asks for what, and compares it with the lock file it was made from.

finish_sbom.py BILL LOCK NAME==VERSION writes the bill to standard output. It fails, with what differs, where the bill
does not hold every package of the lock file with every hash and nothing else, or is about something else.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Locked:
    """A package of the lock file: its version, its hashes, and the names of those that ask for it."""

    version: str
    hashes: set[str] = field(default_factory=set)
    wanted_by: set[str] = field(default_factory=set)


def read_lock(text: str) -> dict[str, Locked]:
    """Read a lock file with hashes. ValueError for a line that is neither a pin, a hash nor a comment."""
    found: dict[str, Locked] = {}
    last = Locked("")
    for line in text.splitlines():
        said = line.strip().removesuffix("\\").strip()
        if pin := re.match(r"([a-z0-9-]+)==([^ ;]+)", said):
            last = found[pin[1]] = Locked(pin[2])
        elif said.startswith("--hash=sha256:"):
            last.hashes.add(said.removeprefix("--hash=sha256:"))
        elif said.startswith("#"):
            # "# via klein", or "# via" and a line "#   klein" for each; "-c FILE" is no package.
            if line.startswith(" ") and (asks := re.match(r"#\s+(?:via\s+)?([a-z0-9][a-z0-9.-]*)", said)):
                last.wanted_by |= {asks[1]} - {"via"}
        elif said:
            raise ValueError(f"cannot be read: {line}")
    return found


def differences(bill: dict[str, Any], lock: dict[str, Locked], subject: str) -> list[str]:
    """Say what a bill has otherwise than the lock file."""
    root = bill["metadata"]["component"]
    about = f"{root.get('name')}=={root.get('version')}"
    wrong = [] if about == subject else [f"it is about {about}, not {subject}"]
    components = bill["components"]
    names = [each["name"] for each in components]
    wrong += [f"{name} is there twice" for name in sorted({each for each in names if names.count(each) > 1})]
    wrong += [f"{name} is missing" for name in sorted(lock.keys() - set(names))]
    wrong += [f"{name} is not locked" for name in sorted(set(names) - lock.keys())]
    for each in components:
        pin = lock.get(each["name"])
        if pin is None:
            continue
        if each.get("version") != pin.version:
            wrong.append(f"{each['name']} is {each.get('version')} there, {pin.version} in the lock file")
        found = [*each.get("hashes", [])]
        for reference in each.get("externalReferences", []):
            found += reference.get("hashes", [])
        if {one["content"] for one in found if one["alg"] == "SHA-256"} != pin.hashes:
            wrong.append(f"{each['name']} has other hashes")
    return wrong


def link(bill: dict[str, Any], lock: dict[str, Locked]) -> None:
    """Write into a bill which package asks for which others."""
    root = bill["metadata"]["component"]
    references = {each["name"]: each["bom-ref"] for each in [*bill["components"], root]}
    wants: dict[str, set[str]] = defaultdict(set)
    for name, pin in lock.items():
        for other in pin.wanted_by:
            wants[references[other]].add(references[name])
    bill["dependencies"] = [
        {"ref": reference, **({"dependsOn": sorted(wants[reference])} if wants[reference] else {})}
        for reference in sorted(references.values())
    ]


def main(path: str, lock_path: str, subject: str) -> None:
    """Complete a bill. SystemExit, with every difference, where it is not as the lock file."""
    bill = json.loads(Path(path).read_text())
    lock = read_lock(Path(lock_path).read_text())
    wrong = differences(bill, lock, subject)
    if wrong:
        raise SystemExit("\n".join([f"the bill of materials is not as {lock_path} says:", *wrong]))
    for each in bill["components"]:
        # The line of the lock file, of which the hashes are told already.
        each["description"] = re.sub(r"\s+--hash=\S+", "", each.get("description", ""))
    link(bill, lock)
    print(json.dumps(bill, indent=2, sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
