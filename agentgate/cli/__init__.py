"""The command line: ``help.txt`` lists the commands, a module each for those that belong
together.
"""
