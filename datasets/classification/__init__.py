"""Classification data: folders, published sets, shards."""
