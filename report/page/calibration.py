"""The section on whether a score can be read as a probability."""

from falconet.report.evidence.calibration import Calibration
from falconet.report.page.drawings import reliability
from falconet.report.page.findings import Section
from falconet.report.page.markup import element, joined


def calibration_section(found: Calibration, *, answers: str) -> Section:
    """Return the reliability diagram, with what it says in words.

    Args:
        found: the answers by their score.
        answers: what is meant by one, for the text.
    """
    if found.error is None:
        return Section('Calibration', element('p', f'There are no {answers} to look at.'))
    lean = found.too_sure
    verdict = (
        'scores can be read as probabilities' if found.error < 0.03
        else 'it is surer than it is right' if lean > found.error / 2
        else 'it is right more often than its scores say' if lean < -found.error / 2
        else 'some scores promise too much, others too little'
    )  # fmt: skip
    words = element(
        'p',
        f'Expected calibration error {found.error:.3f} over {found.counts.sum():,} {answers}: {verdict}. '
        'A bar that ends below the dashed line: answers of that score are right less often than it says; '
        'dark bars hold many answers.',
    )
    plot = reliability('share of right answers by score', found.confidence, found.right, found.counts)
    return Section('Calibration', joined([words, element('div', plot, class_='plots')]))
