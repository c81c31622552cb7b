"""Profiles of the property tests: `pytest --hypothesis-profile=long` looks further."""

import hypothesis

# The same examples at every run, few enough for every day.
hypothesis.settings.register_profile(
    "short",
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "long",
    hypothesis.settings.get_profile("short"),
    max_examples=500,
    derandomize=False,
)
hypothesis.settings.load_profile("short")
