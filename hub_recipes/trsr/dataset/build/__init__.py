"""Raw logs of any make -> interactions, in columns; protocols that choose targets and candidates."""
