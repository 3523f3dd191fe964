"""Real Redis servers and Sentinels, and the tests of what speaks with them."""
