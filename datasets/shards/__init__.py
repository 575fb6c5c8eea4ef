"""Pictures in tar files: written, and read in any order."""
