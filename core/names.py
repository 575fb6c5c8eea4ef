"""What files of ours carry, and what those of before carry, when the project had another name."""

NAME = 'falconet'
MARK = 'made by Falconet'

# Files with the former name still open, and are still ours.
FORMER = {'name': 'kestrel', 'mark': 'made by Kestrel'}
NAMES = (NAME, FORMER['name'])  # keys in files, namespaces of operators, ids of a page's data block
MARKS = (MARK, FORMER['mark'])
