"""Every kind of fault that is looked for: what it is, what it does to a training, what to do about it."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        text: what follows its count; words in braces are filled in.
        consequence, fix: as in `doctor.finding.Finding`.
        serious: it spoils a training or its scores, or stops it.
        repaired: `--fix` takes care of it.
    """

    text: str
    consequence: str
    fix: str
    serious: bool = False
    repaired: bool = False


STOPS = 'A training refuses them and stops'
KINDS = {
    # Pictures.
    'unreadable': Kind(
        'pictures of {part} cannot be read',
        'They are passed over, and another takes their place',
        'Copy or export them again, or take them out',
        serious=True,
    ),
    'truncated': Kind(
        'pictures of {part} end before they should',
        'They are passed over, and another takes their place',
        'Copy them again; --fix keeps those of which little is missing',
        serious=True,
        repaired=True,
    ),
    'other_size': Kind(
        'pictures of {part} have another size than their annotations say',
        'The annotations belong to another version of the picture: it is passed over',
        'Put the version there that was labelled',
        serious=True,
    ),
    'copies_between_splits': Kind(
        'pictures of {part} are copies of training pictures',
        'They are learnt by heart and flatter every score',
        'Take them out of one of the two; --fix takes them out of training',
        serious=True,
        repaired=True,
    ),
    'near_copies_between_splits': Kind(
        'pictures of {part} are nearly training pictures',
        'They are learnt by heart and flatter every score',
        'Take them out of one of the two, or split by scene or by series',
        serious=True,
    ),
    'copies_in_training': Kind(
        'training pictures are copies of others',
        'What is in them counts twice',
        'Keep one of each',
    ),
    'near_copies_in_training': Kind(
        'training pictures are nearly others',
        'What is in them counts twice',
        'Keep one of each, if they add nothing',
    ),
    'copies_of_two_classes': Kind(
        'copies of one picture are labelled differently',
        'One of the two teaches what is wrong',
        'Look at them, and keep the right one',
        serious=True,
    ),
    'exif_beside_boxes': Kind(
        'pictures of {part} with boxes have to be turned, by their EXIF note',
        'Whether boxes belong to the turned picture or the stored one can be told by its size only',
        'Look at them with tools/browse_data.py; --fix writes them upright, without the note',
        repaired=True,
    ),
    'exif_beside_masks': Kind(
        'pictures of {part} with masks have to be turned, by their EXIF note',
        'Whether masks belong to the turned picture or the stored one can be told by their size only',
        'Look at them with tools/browse_data.py; --fix writes them upright, without the note',
        repaired=True,
    ),
    'grey': Kind(
        'pictures of {part} are stored as grey, others in colour',
        'They are learnt as colours that are alike; the network will see few such',
        'Leave them, if such pictures will come; else take them out',
    ),
    'cmyk': Kind(
        'pictures of {part} are stored as CMYK, for print',
        'Programs differ in how they turn it into RGB; what is learnt may look different elsewhere',
        'Save them as RGB; --fix does',
        repaired=True,
    ),
    'transparent': Kind(
        'pictures of {part} can be seen through',
        'They are laid over white, which the network learns as part of the object',
        'Lay them over what they will be seen on; --fix lays them over white',
        repaired=True,
    ),
    'sixteen_bit': Kind(
        'pictures of {part} have 16 bits or more a value',
        'The upper 8 bits are used: dark pictures of 10 or 12 bits are almost black',
        'Save them with 8 bits over the range that counts; --fix takes the upper 8 bits',
        repaired=True,
    ),
    'small': Kind(
        'pictures of {part} are enlarged more than {times:g} times for the input of {size}',
        'They are blurred, beside others that are sharp',
        'A smaller input (the sizes in `augment`), or larger pictures',
    ),
    'shape': Kind(
        'pictures of {part} are {ratio:g} times as long for their width as the input of {size}, or more',
        'They are stretched, padded or cropped so much that objects change shape or are lost',
        'Cut them into pieces, or take an input of another shape',
    ),
    # Pictures and annotations.
    'split_not_readable': Kind(
        '{part} cannot be scored',
        'A test of it stops; a training goes on without it',
        'Correct it, or take it away',
    ),
    'pictures_unlabelled': Kind(
        'pictures of {part} are there without an annotation',
        'They are left out (in YOLO: taken for pictures without objects)',
        'Label them, or take them away',
    ),
    'annotations_without_picture': Kind(
        'annotations of {part} have no picture',
        'What they say is not learnt',
        'Copy the pictures there, or correct their names',
        serious=True,
    ),
    'names_double': Kind(
        'annotations could mean two pictures of one name',
        STOPS,
        'Rename one of the two, or take it away',
        serious=True,
    ),
    'names_twice_in_a_list': Kind(
        'names stand in a list of pictures more than once',
        STOPS,
        'Take one of the lines away',
        serious=True,
    ),
    'pictures_in_two_splits': Kind(
        'pictures are both learnt and scored',
        STOPS,
        'Take them out of one of the splits',
        serious=True,
        repaired=True,
    ),
    # Classes.
    'class_absent_in_training': Kind(
        'classes have nothing to learn from',
        'They are never answered',
        'Label some, or take the class away',
        serious=True,
    ),
    'class_absent_in_validation': Kind(
        'classes are not scored',
        'The mean says nothing about them',
        'Move some pictures of theirs into validation',
    ),
    'class_in_one_split': Kind(
        'folders of classes are in one split only',
        STOPS,
        'Every class needs a folder in every split, spelt alike',
        serious=True,
    ),
    'class_rare': Kind(
        'classes have fewer than {few} {unit} to learn from',
        'What is learnt of them is by chance',
        'Label more of them',
    ),
    'class_misspelt': Kind(
        'names of classes are almost alike, and not in all splits',
        'Two spellings are two classes: each is learnt from a part, and the other is its error',
        'Spell them alike',
        serious=True,
    ),
    'class_small_area': Kind(
        'classes take less than {share:g} % of the labelled pixels of training',
        'A network that never answers them loses little',
        'Class weights (class_weights of the head), or crops around them',
    ),
    # Boxes.
    'boxes_outside': Kind(
        'boxes of {part} are outside of their picture',
        'They are dropped',
        'Correct them; are they of another picture, or of one size larger? --fix drops them',
        serious=True,
        repaired=True,
    ),
    'boxes_reach_out': Kind(
        'boxes of {part} reach out of their picture',
        'They are cut off at its edge',
        'Correct them; --fix cuts them off',
        repaired=True,
    ),
    'boxes_empty': Kind(
        'boxes of {part} have no area',
        'They are dropped',
        'Draw them again; --fix drops them',
        repaired=True,
    ),
    'boxes_broken': Kind(
        'boxes of {part} are no numbers, or fractions where pixels are meant',
        'They are dropped',
        'Correct them; --fix drops them',
        serious=True,
        repaired=True,
    ),
    'boxes_tiny': Kind(
        'boxes of {part} are less than {least} pixels wide or high at the input of {size}',
        'The network hardly sees them',
        'A larger input (Resize in both loaders), or crops of the pictures',
    ),
    'boxes_double': Kind(
        'boxes of {part} are there twice, of one class at one place',
        'One of the two can never be found',
        'Take one away; --fix does',
        repaired=True,
    ),
    'boxes_like_no_default': Kind(
        'boxes of {part} ({share:.0%}) overlap no default box by {threshold:g}',
        'Each is learnt by one default box that hardly fits, and found late or never',
        'A larger input, or larger objects',
        serious=True,
    ),
    'outlines_broken': Kind(
        'outlines of {part} enclose nothing, or cannot be drawn',
        'They are dropped',
        'Draw them again',
    ),
    'annotations': Kind('in {part}: {what}', 'It is dropped or changed', 'Correct the annotations there'),
    # Masks.
    'masks_unreadable': Kind(
        'masks cannot be read as indices of classes',
        STOPS,
        'Save them as PNG, the index of the class in every pixel',
        serious=True,
    ),
    'masks_unexpected': Kind(
        'masks hold values that are no class',
        STOPS,
        'Complete the list of classes, or correct the masks; 255 marks pixels that do not count',
        serious=True,
    ),
    'masks_other_size': Kind(
        'masks have another size than their picture',
        STOPS,
        'Export them at the size of the picture, without interpolation',
        serious=True,
    ),
    'masks_empty': Kind(
        'masks of {part} label nothing: every pixel is 255',
        'Nothing is learnt from these pictures',
        'Label them, or take them out; --fix takes them out',
        repaired=True,
    ),
}  # fmt: skip

# What the readers note (`datasets.annotations.Problems`), by how it begins: the kind of fault that it is.
OF_PROBLEMS = {
    'boxes dropped, not finite': 'boxes_broken',
    'boxes dropped, in the first pixel': 'boxes_broken',
    'boxes dropped, farther out': 'boxes_outside',
    'boxes dropped, outside': 'boxes_outside',
    'boxes dropped, zero': 'boxes_empty',
    'boxes clipped': 'boxes_reach_out',
    'boxes dropped, no such picture': 'annotations_without_picture',
    'images dropped, no such': 'annotations_without_picture',
    'pictures dropped, no such': 'annotations_without_picture',
    'label files without': 'annotations_without_picture',
    'masks without': 'annotations_without_picture',
    'objects dropped, of images': 'annotations_without_picture',
    'pictures dropped, not readable': 'unreadable',
    'pictures without a label': 'pictures_unlabelled',
    'listed images without': 'pictures_unlabelled',
    'objects dropped, without an outline': 'outlines_broken',
    'objects dropped, whose outline': 'outlines_broken',
    'objects drawn without': 'outlines_broken',
    'shapes dropped': 'outlines_broken',
}


def kind_of_problem(text: str) -> str:
    """Return the kind of what a reader has noted."""
    return next((kind for start, kind in OF_PROBLEMS.items() if text.startswith(start)), 'annotations')
