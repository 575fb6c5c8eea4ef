"""Checkpoints: the file, models from it, other projects' weights."""

if __name__ == 'checkpoints':
    raise ImportError(
        'import falconet.checkpoints: by its bare name it would be a second copy, with registries of its own'
    )
