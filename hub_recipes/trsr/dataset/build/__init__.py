"""Raw logs of any make -> who met what, in columns; protocols that say who is asked about what."""
