"""Training and evaluation: a wrapper around mmengine's Runner, with its known gaps filled."""

if __name__ == 'engine':
    raise ImportError(
        'import falconet.engine: by its bare name it would be a second copy, with registries of its own'
    )
