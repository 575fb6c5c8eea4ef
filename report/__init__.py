"""What a run shows a person."""

if __name__ == 'report':
    raise ImportError(
        'import falconet.report: by its bare name it would be a second copy, with registries of its own'
    )
