"""Data of every task: reading pictures and annotations, data sets, augmentation, loading."""
