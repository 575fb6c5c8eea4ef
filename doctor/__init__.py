"""What is wrong with labelled pictures, found before hours are spent on them."""

if __name__ == 'doctor':
    raise ImportError(
        'import falconet.doctor: by its bare name it would be a second copy, with registries of its own'
    )
