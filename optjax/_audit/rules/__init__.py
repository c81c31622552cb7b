"""One function a rule: verdicts of facts."""
