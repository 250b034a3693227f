"""Output for readers: Markdown, plots, card templates."""
