"""What a crash report has to say, a module for each topic.

Their functions take the opened kernel and yield a section's lines. A guest's memory may hold anything: every
list has a largest length, and what cannot be read is named or left out.
"""
