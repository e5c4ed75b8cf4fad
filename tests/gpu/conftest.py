from tests.learner.conftest import folder, groups  # noqa: F401  the same tiny policy and groups
