"""The Debian package in a real Debian 12: what `scripts/system-test` runs, beside pytest."""
