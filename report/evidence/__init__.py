"""What pictures say beyond their mean: how sure a score is, and how far scores can be believed."""
