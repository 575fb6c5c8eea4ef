"""A network in the memory it is asked for: plans of execution, what they need, and a module that follows one.

    network -> candidates -> plan (segments, patches, slices) -> steps -> peak, multiply-adds
                                                                      -> module -> any exported format

Section 5 of the paper (arXiv 1801.04381) computes a block as a sum over slices of its expanded tensor;
MCUNetV2 (arXiv 2110.15352) computes the first stages patch by patch. Both, at any place of the network, are
here.
"""

from falconet.deploy.memory.execute import PlannedBackbone, apply
from falconet.deploy.memory.network import read_network
from falconet.deploy.memory.plan import RULES, Plan, Rules, Segment
from falconet.deploy.memory.search import Search, plan
from falconet.deploy.memory.sizes import memory_size
from falconet.deploy.memory.steps import multiply_adds, peak

__all__ = [
    'RULES',
    'Plan',
    'PlannedBackbone',
    'Rules',
    'Search',
    'Segment',
    'apply',
    'memory_size',
    'multiply_adds',
    'peak',
    'plan',
    'read_network',
]
