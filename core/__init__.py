"""What everything else builds on: errors, options, registries, plain values, files of ours."""

if __name__ == 'core':
    raise ImportError(
        'import falconet.core: by its bare name it would be a second copy, with registries of its own'
    )
