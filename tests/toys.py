"""`etude.testing.toys` under the names that these tests use."""

from dataclasses import replace

from etude.testing.toys import *  # noqa: F403
from etude.testing.toys import ToyBatch as Lesson
from etude.testing.toys import toy_batch as lesson

__all__ = ["Lesson", "lesson", "replace"]
