"""What shared prefixes save: scoring, training and summarising, each beside the ways others do it."""
