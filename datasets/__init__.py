"""Data of every task: reading pictures and annotations, data sets, augmentation, loading."""

if __name__ == 'datasets':
    raise ImportError(
        'import falconet.datasets: by its bare name it would be a second copy, with registries of its own'
    )
