"""Google's XML API over moto: `python -m scripts.gcs_server PORT`, with moto on the path.

The XML API is that of S3 with other names of headers. No fake of Google's in a wheel answers it as its clients expect
(docs/stages_services.md says what was tried), so four headers are translated before moto and one is added after it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]

# Whatever it says; moto looks for the form only, and Google's clients send none to a server without accounts.
_AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=anyone/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none"
)


class Translated:
    """Google's header names for those of S3.

    Args:
        application: Understands S3's.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        environ["HTTP_AUTHORIZATION"] = _AUTHORIZATION
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        if source := environ.pop("HTTP_X_GOOG_COPY_SOURCE", None):
            environ["HTTP_X_AMZ_COPY_SOURCE"] = source

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, ("x-goog-generation", "1")], *rest)

        return self._application(environ, start)


def main() -> None:
    """Serve until the process is ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = Translated(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True)


if __name__ == "__main__":
    main()
