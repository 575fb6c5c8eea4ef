"""A page that stands alone: one HTML file with its pictures in it, which asks no network for anything."""
