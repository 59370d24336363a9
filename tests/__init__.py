"""
The tests of kmsproto, for trial.  Their folders mirror the layers of the package.
"""
