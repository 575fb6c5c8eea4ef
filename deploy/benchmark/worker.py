"""A process that holds one subject: python -m deploy.benchmark.worker

What it is told and what it answers are lines of JSON on its standard input and output, one for each thing to
do. Engines that print do so on standard error.
"""

import json
import os
import sys
from typing import Any

from falconet.core.errors import UserError


def main() -> None:
    """Answer until the input ends."""
    with os.fdopen(os.dup(1), 'w', encoding='utf-8') as answers:
        os.dup2(2, 1)
        # Takes seconds, and begins before anything is asked for.
        from falconet.deploy.benchmark.measured_model import Subject, missing

        subject: Any = None
        for line in sys.stdin:
            order = json.loads(line)
            name = order.pop('do')
            try:
                if name == 'open':
                    why = missing(order['path'])
                    subject = None if why else Subject(order.pop('path'), **order)
                    said = {'missing': why} if why else subject.facts
                else:
                    said = getattr(subject, name)(**order)
                answer = {'said': said}
            except UserError as error:
                answer = {'error': str(error)}
            except MemoryError:
                answer = {'error': f'{name}: does not fit into memory'}
            answers.write(json.dumps(answer) + '\n')
            answers.flush()
        # Engines' threads need no ceremony here.
        os._exit(0)


if __name__ == '__main__':
    main()
