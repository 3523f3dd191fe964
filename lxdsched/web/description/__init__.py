"""The daemon's own description, in OpenAPI 3.1: what it serves at `/openapi.json`.

`forms.py` are the few shapes that the rest is written in, `asked.py` describes requests, `told.py` answers, `errors.py`
every error, `operations.py` the endpoints, `document.py` puts them together. Limits and names come from the code that
holds to them, so that they cannot drift; what is left is compared with served answers by the tests.
"""

from lxdsched.web.description.document import describe

__all__ = ["describe"]
