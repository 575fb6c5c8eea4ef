"""Look for faults in labelled pictures: python tools/check_data.py configs/ssdlite_folder.py --data-root DIR

Exit code 0: nothing found. 1: something was. 2: the data cannot be read, and why.
"""

import argparse
import json
import sys
from pathlib import Path

# Lets the tools run from a checkout that was never installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Look for faults in labelled pictures before training on them. Exit code: 0 nothing '
        'found, 1 something, 2 not readable.'
    )
    parser.add_argument('config', help='the config that will be trained')
    parser.add_argument(
        '--data-root', metavar='DIR', help="where the data lies, instead of the config's place"
    )
    parser.add_argument(
        '--data-format', metavar='NAME', help="format of one's own data, where a folder holds several"
    )
    parser.add_argument('--json', action='store_true', help='print the findings as JSON')
    parser.add_argument('--html', metavar='FILE', help='write them as a page, with pictures')
    parser.add_argument(
        '--fix',
        metavar='OUT',
        help='write a repaired copy into a new folder; what is left is listed, and decides the exit code',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config, as in train.py'
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from falconet.doctor.examine import examine, write_html, write_repaired
    from falconet.engine.held_out import with_format
    from falconet.tasks.build import load_config

    config = load_config(arguments.config, arguments.cfg_options)
    if arguments.data_format is not None:
        with_format(config, arguments.data_format)
    result = examine(config, root=arguments.data_root)
    say = print if not arguments.json else lambda text: print(text, file=sys.stderr)
    if arguments.html is not None:
        write_html(result, Path(arguments.html))
        say(f'wrote {arguments.html}')
    if arguments.fix is not None:
        kind, steps = write_repaired(result, Path(arguments.fix))
        for step in steps or ['nothing had to be repaired']:
            say(f'repaired: {step}')
        say(f'wrote {arguments.fix} ({kind}), where this is left:\n')
        with_format(config, kind)
        result = examine(config, root=arguments.fix)
    if arguments.json:
        print(json.dumps(result.as_plain(), indent=1))
    else:
        for part, text in result.parts.items():
            print(f'{part}: {text}')
        for each in result.findings:
            print(f'\n{each}')
        print(f'\n{len(result.findings)} kinds of faults' if result.findings else '\nnothing found')
    if result.findings:
        sys.exit(1)


if __name__ == '__main__':
    from falconet.core.errors import run_command

    run_command(main)
