"""The target ``image``: each restore point is a directory of image files that open without vbackup."""
