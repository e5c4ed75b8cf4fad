"""What tests of the installation share."""

from tests.support.installations import machine  # noqa: F401  a fixture
