"""A BPS workflow service for Slurm: `service.SlurmService`, usable by plain ``bps submit``.

A workflow is one array of held elements for each kind of job, submitted in as many calls of ``sbatch`` as there are
arrays, and one small job more: the dispatcher. Slurm's own dependencies are between whole arrays, or between the
elements of two arrays one by one, and say nothing of trying again with more memory. So the dispatcher keeps the order
instead, as DAGMan does for HTCondor: it releases an element as soon as the jobs that it depends on have succeeded,
submits a job anew where it may be tried again, and gives up the descendants of what failed, and nobody else's.

* Submitting the dispatcher is what makes a submission: what was submitted before it is held, and can do nothing.
* One dispatcher serves all of a user's workflows; the others wait in the queue (``--dependency=singleton``) and take
  over when it ends. So workflows don't fill a small cluster with processes that wait for each other. Only those wait
  for each other that ask for the same, so that one that Slurm never starts keeps nobody else from starting.
* Jobs write down how they ended, which the dispatcher sees without asking Slurm; once in a while, and when a job did
  not end well, it asks once for all jobs. Nothing asks for single jobs.
* Everything is in the submit folder and in Slurm: a dispatcher that dies is requeued, or another takes over.

Belongs here: `jobs` says what a job is and `plan` what may run, `ends` what an end means, `queue` reads what Slurm
says, `commands` runs its commands, `arrays` cuts and names arrays, `store` remembers a workflow and `registry` which
there are, `workflow` writes down what BPS asked for, `checks` says what a cluster can't do, `conductor` makes one
workflow go on, `dispatcher` is the process that conducts, `report` says how a workflow stands, and `service` answers
``bps``.
Doesn't: anything about releases, steps or Dagster. Nothing is imported here, so that the dispatcher starts in no time.
"""
