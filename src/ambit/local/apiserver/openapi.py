"""OpenAPI v3 documents."""

from aiohttp import web

from ambit.local.apiserver.failures import ApiFailure


class OpenApi:
    """Answers /openapi/..."""

    def answer(self, request: web.Request) -> web.Response:
        raise ApiFailure(404, "NotFound", f"{request.path} is not served")
