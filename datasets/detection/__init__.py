"""Detection data: boxes in every layout."""
