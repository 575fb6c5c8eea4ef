"""What happens to a picture before the network sees it."""
