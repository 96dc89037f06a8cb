"""The commands of ``stream-fp-offline``, one file each; `offline.cli` puts them together.

A command imports what it needs of scikit-learn and the like when it runs, so that ``--help`` stays quick.
"""
