"""What happens around iterations and epochs: averaging, saving, stopping, progress."""
