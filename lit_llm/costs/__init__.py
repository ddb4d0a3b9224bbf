"""What a run costs: measured by `lit-llm bench`, foretold by `lit-llm plan`.

Both read the config of a `fit`, so this room lies above the command line, and nothing in the package imports it.
"""
