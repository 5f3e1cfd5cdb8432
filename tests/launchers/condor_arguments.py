"""What HTCondor makes of a submit file's arguments, by its own parsers."""

from __future__ import annotations

import classad2
import htcondor2


def arguments(submit_file: str) -> list[str]:
    """Give what the executable gets: macros expanded, then both kinds of quotes taken away."""
    text = htcondor2.Submit(submit_file).expand("arguments")
    assert text.startswith('"')
    assert text.endswith('"')
    assert '"' not in text[1:-1].replace('""', ""), "HTCondor refuses the job"
    job = classad2.ClassAd({"Arguments": text[1:-1].replace('""', '"')})
    return classad2.ExprTree("argsToList(Arguments)").eval(job)
