"""Puts a release into debian/changelog: its part of CHANGELOG.md, as the newest entry.

debian_changelog.py CHANGELOG VERSION NOTES "NAME <ADDRESS>" SECONDS changes the file CHANGELOG. VERSION is Debian's,
NOTES a file with Markdown, SECONDS the time since the epoch. An entry that was begun for the version, or has the
distribution UNRELEASED, gives way to the new one.
"""

from __future__ import annotations

import re
import sys
import textwrap
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

_HEAD = re.compile(r"^lxdsched \((?P<version>[^)]+)\) (?P<distribution>\S+); urgency=\S+$", re.MULTILINE)
_FIRST = "bookworm"


def points(notes: str) -> list[str]:
    """Return what a part of CHANGELOG.md tells, each point on one line, a section's name before its first."""
    found: list[str] = []
    section = ""
    for line in notes.splitlines():
        if line.startswith("### "):
            section = f"{line.removeprefix('### ')}: "
        elif line.startswith("- "):
            found.append(section + line.removeprefix("- "))
            section = ""
        elif line.strip() and not line.startswith("#") and found:
            found[-1] += f" {line.strip()}"
    return found


def changed(changelog: str, version: str, notes: str, who: str, when: datetime) -> str:
    """Return a changelog with the release as its newest entry. ValueError where the notes tell nothing."""
    said = points(notes)
    if not said:
        raise ValueError("the notes tell nothing")
    heads = list(_HEAD.finditer(changelog))
    distribution = next((each["distribution"] for each in heads if each["distribution"] != "UNRELEASED"), _FIRST)
    if heads and (heads[0]["version"] == version or heads[0]["distribution"] == "UNRELEASED"):
        changelog = changelog[heads[1].start() :] if len(heads) > 1 else ""
    lines = [
        textwrap.fill(
            each, 80, initial_indent="  * ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        for each in said
    ]
    entry = [f"lxdsched ({version}) {distribution}; urgency=medium", "", *lines, ""]
    entry.append(f" -- {who}  {format_datetime(when)}")
    return "\n".join(entry) + "\n" + ("\n" + changelog if changelog else "")


def main(path: str, version: str, notes: str, who: str, seconds: str) -> None:
    """Change the file."""
    changelog = Path(path)
    when = datetime.fromtimestamp(int(seconds), UTC)
    changelog.write_text(changed(changelog.read_text(), version, Path(notes).read_text(), who, when))


if __name__ == "__main__":
    main(*sys.argv[1:])
