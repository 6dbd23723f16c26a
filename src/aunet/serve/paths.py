"""Where in the application a request goes, wherever the application itself is."""

from starlette.types import Scope


def path_of(scope: Scope) -> str:
    """The path as routes see it: without that of an application, or a proxy's prefix, in which this one is mounted.

    >>> path_of({"path": "/lm/v1/models", "root_path": "/lm"})
    '/v1/models'
    """
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path
