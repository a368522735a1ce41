"""The three models that a pipeline compares, in the order of its tables."""

# Role, which names the run's directory -> title.
ROLES = {"teacher": "teacher", "student": "student alone", "distilled": "student distilled"}
# Those that the student distilled is compared with, in the order of the comparisons -> title.
REFERENCES = {role: ROLES[role] for role in ("student", "teacher")}
