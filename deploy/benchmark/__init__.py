"""What every exported file of a checkpoint costs: measured beside each other, each in a process of its own.

subject   one file, opened: how long it takes to load and to answer, and what memory it wants
worker    a process that holds one subject and does what it is told, a line of JSON at a time
turns     all workers, in turn: a busy machine disturbs each of them alike
report    the table, as JSON and Markdown
picture   the same as a PNG
"""

from falconet.deploy.benchmark.interleave import benchmark

__all__ = ['benchmark']
