"""What a task answers: its model, predictor, results, metric and page."""

if __name__ == 'tasks':
    raise ImportError(
        'import falconet.tasks: by its bare name it would be a second copy, with registries of its own'
    )
