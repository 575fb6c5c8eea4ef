"""The command `falconet`, from any folder: falconet train linear_folder --data-root my_data

Each file beside this one is a command of its name, and runs as it does by itself.
"""

import ast
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def commands() -> dict[str, Path]:
    """Return the commands by name: 'convert-weights' is convert_weights.py."""
    own = Path(__file__).stem
    files = sorted(file for file in FOLDER.glob('*.py') if file.stem != own)
    return {file.stem.replace('_', '-'): file for file in files if not file.stem.startswith('_')}


def overview() -> str:
    """Return what `falconet --help` prints."""
    lines = ['usage: falconet COMMAND ...', '', 'commands (falconet COMMAND --help says more):']
    for name, file in commands().items():
        said = (ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or '').split('\n')[0]
        lines.append(f'  {name:16} {said.split(": python")[0]}')
    lines += ['', "A config is a path, or a name of the project's own: falconet train linear_folder"]
    return '\n'.join(lines)


def main() -> None:
    """Run the command that the arguments name; leave with its exit code."""
    from falconet.core.errors import closest

    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(overview())
        sys.exit(0 if len(sys.argv) > 1 else 2)
    name, known = sys.argv[1], commands()
    file = known.get(name.replace('_', '-'))
    if file is None:
        print(f'error: there is no command {name!r}. {closest(name, known)}', file=sys.stderr)
        sys.exit(2)
    # The tool's own parser reads the rest, and calls itself this in its messages.
    sys.argv = [f'falconet {name}', *sys.argv[2:]]
    runpy.run_module(f'falconet.tools.{file.stem}', run_name='__main__')


if __name__ == '__main__':
    main()
