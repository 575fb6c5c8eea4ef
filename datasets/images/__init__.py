"""Reading pictures, and what is remembered of them."""
