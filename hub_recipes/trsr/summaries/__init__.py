"""A dataset with histories -> the same with summaries: every user, level by level, nothing asked twice, nothing lost."""
