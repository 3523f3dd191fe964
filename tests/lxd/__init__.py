"""Real LXD daemons for the tests, and the driver that changes things on real and simulated ones alike."""
