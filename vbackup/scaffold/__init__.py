"""New plugin packages: templates, and what fills them."""

from vbackup.scaffold.make import Made, make
from vbackup.scaffold.names import Names, refuse_taken
from vbackup.scaffold.roles import ROLES, Role

__all__ = ["ROLES", "Made", "Names", "Role", "make", "refuse_taken"]
