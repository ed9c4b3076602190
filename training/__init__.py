"""Everything that happens before a release exists: imports, simulation, fitting, evaluation, export."""
