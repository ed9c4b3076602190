"""The weekly loop in parts: its plan, the record of its steps, the questions that champion and
challenger both answer, and the report. `training.pipeline` puts them in order."""
