"""File formats of annotations, each read and written here."""
