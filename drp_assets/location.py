"""One code location under the name that `dg` looks for.

Belongs here: choosing it. Doesn't: what a location holds (`drp_assets.definitions`).
"""

import os

from drp_assets import definitions

defs = getattr(definitions, os.environ.get("DRP_LOCATION", "demo"))
