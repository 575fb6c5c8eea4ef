"""Deployment: what takes a trained model out of Python, and runs what came out.

    checkpoint -> program (picture in, answer out) -> a file of some format -> engine -> the same results

It imports `tasks`; only `tools` import it. Libraries of a format are imported where that format is used.
"""

if __name__ == 'deploy':
    raise ImportError(
        'import falconet.deploy: by its bare name it would be a second copy, with registries of its own'
    )
