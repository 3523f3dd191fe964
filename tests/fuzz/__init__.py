"""Whatever comes from outside, each of our parsers holds: one file a parser, and what drives them by coverage."""
