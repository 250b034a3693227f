"""Text and pictures for people: Markdown, plots, card templates."""
